# A stand-in for PostgreSQL's image; the context is tests/.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \
    && apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql \
    && install -d -o postgres -g postgres /var/lib/postgresql/data \
    && for program in initdb pg_ctl postgres; do \
         ln -s /usr/lib/postgresql/*/bin/$program /usr/local/bin/; done
COPY containers/postgres_entry.sh /usr/local/bin/entry.sh
# As upstream: clients are told to go, not waited for.
STOPSIGNAL SIGINT
ENV PGDATA=/var/lib/postgresql/data
ENTRYPOINT ["sh", "/usr/local/bin/entry.sh"]
