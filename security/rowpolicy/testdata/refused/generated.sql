-- ERROR 0A000 GENERATED ALWAYS AS (…) STORED is not supported (line 3, column 23)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int generated always as (1) stored);
