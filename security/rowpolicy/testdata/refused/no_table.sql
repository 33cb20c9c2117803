-- ERROR 42P01 relation "nope" does not exist (line 3, column 20)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on nope using (true);
