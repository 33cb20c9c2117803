-- ERROR 0A000 CREATE TRIGGER is not supported (line 3, column 1)
create table a (b int);
create trigger x after insert on a execute function f();
