-- ERROR 22007 invalid input syntax for type date (write it as 2006-01-02T15:04:05Z) (line 3, column 32)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(d = 'today');
