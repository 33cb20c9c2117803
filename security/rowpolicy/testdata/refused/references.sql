-- ERROR 0A000 REFERENCES auth.users is not supported (line 3, column 33)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a uuid not null references auth.users (id) on delete cascade);
