-- ERROR 0A000 type numeric with a precision is not supported (line 3, column 19)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a numeric(10, 2));
