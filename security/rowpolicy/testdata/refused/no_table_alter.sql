-- ERROR 42P01 relation "public.nope" does not exist (line 3, column 13)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
alter table public.nope enable row level security;
