-- ERROR 42804 argument of AND must be type boolean, not type text (line 3, column 35)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(b and (s));
