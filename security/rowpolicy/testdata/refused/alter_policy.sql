-- ERROR 0A000 ALTER POLICY is not supported (line 3, column 1)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
alter policy p on t using (true);
