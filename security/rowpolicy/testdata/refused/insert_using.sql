-- ERROR 42601 only WITH CHECK expression allowed for INSERT (line 3, column 1)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t for insert using (true);
