#!/bin/sh
# Writes .env with fresh secrets for docker-compose.yml; leaves one that is there as it is.
set -eu
file=${1:-.env}
if [ -e "$file" ]; then
    echo "$file is there already; remove it to make new secrets (the old ones are then lost)" >&2
    exit 1
fi
secret() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
cat >"$file.part" <<END
POSTGRES_PASSWORD=$(secret)
POSTGRES_SUPERUSER_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
S3_SECRET_KEY=$(secret)
PPD_SESSION_SECRET=$(secret)
END
mv "$file.part" "$file"
echo "wrote $file"
