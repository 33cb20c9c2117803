-- ERROR 0A000 cannot use subquery in DEFAULT expression (line 3, column 32)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a uuid default (select auth.uid()));
