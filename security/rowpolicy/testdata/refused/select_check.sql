-- ERROR 42601 WITH CHECK cannot be applied to SELECT or DELETE (line 3, column 1)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t for select with check (true);
