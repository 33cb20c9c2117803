-- ERROR 42704 role "manager" does not exist (line 3, column 25)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t to manager using (true);
