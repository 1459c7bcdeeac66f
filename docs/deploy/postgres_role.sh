#!/bin/sh
# Run once by the PostgreSQL image, when its folder is empty: the program's own role and database.
# The role is no superuser: those may take the last connections, and read the server's files.
set -eu
psql --set=ON_ERROR_STOP=1 --username postgres --dbname postgres <<'END'
\set password `cat "$ROLE_PASSWORD_FILE"`
CREATE ROLE ppd LOGIN PASSWORD :'password';
CREATE DATABASE ppd OWNER ppd ENCODING 'UTF8' TEMPLATE template0;
END
