-- ERROR 42804 argument of POLICY must be type boolean, not type integer (line 3, column 28)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(i);
