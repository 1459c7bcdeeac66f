"""Every query of the service, a class per noun, together in `store.Store` over one transaction.

SQLite lets one write transaction run at a time. On PostgreSQL they run beside each other, in any
number of processes, so what a transaction decides by is locked first, and always in this order, so
that no two of them wait for each other: a person's row (of several people, by user id), jobs' rows
(by id), profiles' rows, then the rest.

- A person's answers, profile versions and uploads change under `Users.alone`: one at a time.
- Whatever refers to a person, a new job or a finished picture, holds the row as well, together with
  others who do. An erasure holds it against all of them: it comes before, and they find nobody, or
  after, and takes along what they left.
- A job changes its state by one statement that names the state it leaves, or under its row's lock,
  so of two ends the second finds nothing to end.

Left without a lock, since a queue for it would cost more than the error: how many jobs wait, and
whose turn comes next. Transactions of the same moment do not see each other there, so a limit may
be passed by as many as they write. Requests for pictures that wait in one process are one
transaction, which counts its own; those beside it are of other processes, or alone.
"""
