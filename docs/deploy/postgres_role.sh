#!/bin/sh
# Run once by the PostgreSQL image, when its folder is empty: the program's own role and database.
# The role is no superuser: those may take the last connections, and read the server's files.
set -eu
psql --set=ON_ERROR_STOP=1 --set=password="$ROLE_PASSWORD" --username postgres --dbname postgres <<'END'
CREATE ROLE ppd LOGIN PASSWORD :'password';
CREATE DATABASE ppd OWNER ppd;
END
