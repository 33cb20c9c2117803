-- ERROR 22001 value too long for type character varying(2) (line 3, column 38)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a varchar(2) default 'abc');
