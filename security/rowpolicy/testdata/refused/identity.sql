-- ERROR 0A000 GENERATED … AS IDENTITY is not supported (line 3, column 26)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a bigint generated always as identity);
