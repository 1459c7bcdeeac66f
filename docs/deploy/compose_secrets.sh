#!/bin/sh
# Writes fresh secrets for docker-compose.yml into a folder, a file each; leaves what is there. What an .env from
# before 0.2.0 holds is taken over, so that a database made with it still opens.
set -eu
folder=${1:-secrets} env=${2:-.env}
umask 077
mkdir -p "$folder"
chmod 0700 "$folder"
# As Compose reads it: the last one counts, without its quotes.
held() { test ! -e "$env" || sed -n "s/^$1=//p" "$env" | tail -n 1 | sed "s/^\([\"']\)\(.*\)\1\$/\2/"; }
fresh() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
# The folder is its owner's alone. Compose mounts the files as they are, into containers of other users.
put() {
    test ! -e "$folder/$1" || return 0
    printf '%s\n' "$2" >"$folder/.part"
    chmod 0444 "$folder/.part"
    mv "$folder/.part" "$folder/$1"
    echo "wrote $folder/$1"
}
secret() {
    old=$(held "$2")
    put "$1" "${old:-$(fresh)}"
}
secret postgres_password POSTGRES_PASSWORD
secret postgres_superuser_password POSTGRES_SUPERUSER_PASSWORD
secret redis_password REDIS_PASSWORD
secret ppd_s3_secret_access_key S3_SECRET_KEY
secret ppd_session_secret PPD_SESSION_SECRET
put ppd_database_url "postgresql://ppd:$(cat "$folder/postgres_password")@postgres:5432/ppd"
put ppd_redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
