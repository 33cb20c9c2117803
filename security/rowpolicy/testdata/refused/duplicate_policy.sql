-- ERROR 42710 policy "p" for table "t" already exists (line 3, column 31)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t for all; create policy p on t for all;
