create table "Odd Names" (
  a text, b varchar, c varchar(10) default 'x', d character varying(5), e int2, f smallint, g int, h integer, i int4, j bigint,
  k int8, l real, m float4, n float(53), o float8, p numeric, q decimal, r boolean, s uuid, t date, u timestamp,
  v timestamp without time zone, w timestamptz, x json, y jsonb, "select" text, "Quote""d" text
);
create table defaults (
  a text default null,
  b int8 default 5, c int8 default 9999999999, d numeric default 99999999999999999999, e float8 default 'NaN',
  f uuid default '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}', g timestamptz default '2026-02-03 04:05:06.789+02',
  h timestamp default current_timestamp, i text default now(), j int default (1 + 2) * 3 / 4 - -5, k bool default (not true),
  l jsonb default '[]', m text default 'it''s \ "fine"', n text default coalesce(null, 'x'), o int2 default '7'::int8,
  p timestamptz default '2026-02-03', q int default 0x1F, r text default upper('a') || 5
);
create table keys (a int, b int, c int unique, constraint named unique (b, a), unique (c, a), unique (a, c), primary key (b), unique (b));
create table keys_c (key int unique);
drop table if exists nothing;
create table gone (a int);
drop table gone;
create table if not exists keys (z int);
create policy p on keys using (a = 1); create policy q on keys using (a = 2);
drop policy p on keys;
drop policy if exists p on public.keys;
drop policy if exists p on nothing;
alter table keys force row level security; alter table keys no force row level security;
alter table if exists nothing enable row level security;
