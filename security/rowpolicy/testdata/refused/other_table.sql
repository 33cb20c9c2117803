-- ERROR 42P01 missing FROM-clause entry for table "other" (line 3, column 28)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(other.x = 1);
