-- A migration as the guides of the cloud service write it.
begin;
create extension if not exists "uuid-ossp" with schema extensions;
create extension if not exists pgcrypto;

create table if not exists public.profiles (
  id uuid not null primary key,
  username text unique,
  full_name character varying(120),
  updated_at timestamp with time zone default now(),
  settings jsonb not null default '{"theme": "dark"}'::jsonb
);

create table public.notes (
  id uuid primary key default uuid_generate_v4(),
  user_id uuid not null default auth.uid(),
  title text not null,
  body text,
  is_public boolean not null default false,
  created_at timestamptz not null default now()
);

create table todos (
  id bigint not null,
  user_id uuid not null,
  task text,
  is_complete bool default 'f',
  priority smallint default 3,
  estimate numeric default -1.50,
  score double precision default 0,
  due date default '2026-01-31',
  constraint todos_pk primary key (id),
  unique (user_id, task),
  unique (task)
);

alter table profiles enable row level security;
alter table public.notes enable row level security;
alter table todos enable row level security, force row level security;

create policy "Public profiles are viewable by everyone." on profiles for select using ( true );
create policy "Users can insert their own profile." on profiles
  for insert with check ( (select auth.uid()) = id );
create policy "Users can update own profile." on profiles
  for update using ( auth.uid() = id );

create policy "own notes" on public.notes for all to authenticated
  using ((select auth.uid()) = user_id) with check ((select auth.uid()) = notes.user_id);
create policy "public notes" on notes for select to anon, authenticated using (is_public is true);
create policy staff on notes as restrictive for delete to authenticated
  using ((auth.jwt() -> 'app_metadata' ->> 'role') in ('admin', 'owner')
    and ((select auth.jwt() ->> 'level')::int >= 80 or public.notes.user_id is not distinct from auth.uid()));

create policy everything on todos for select to public, anon
  using (priority between 1 and 5 and task ilike 'a%' and task not like '%\_x' and coalesce(is_complete, false) is not true
    and lower(task) || '!' <> upper(task) and due is not null or not (score > 1.5 and id in (1, 2, 3)));
commit;
