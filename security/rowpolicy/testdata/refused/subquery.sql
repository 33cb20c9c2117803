-- ERROR 0A000 EXISTS (SELECT …) is not supported (line 3, column 28)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(exists (select 1));
