-- ERROR 0A000 CURRENT_USER as a policy's role is not supported (line 3, column 25)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t to current_user using (true);
