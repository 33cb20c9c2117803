-- ERROR 0A000 CURRENT_DATE is not supported (line 3, column 32)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(d = current_date);
