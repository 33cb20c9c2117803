-- ERROR 42704 policy "p" for table "t" does not exist (line 3, column 1)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
drop policy p on t;
