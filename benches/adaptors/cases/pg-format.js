// package: npm:pg-format@1
// behind: postgresql
// does: names, values and lists into SQL
import format from 'pg-format';

export default [
  () => {
    const rows = [["Wa's", 1, null], [{ a: 1 }, new Date(0), true]];
    same(
      format('INSERT INTO %I (%I) VALUES %L', 'my table', ['a', 'b', 'c'], rows),
      `INSERT INTO "my table" (a,b,c) VALUES ('Wa''s', '1', NULL), ('{"a":1}'::jsonb, '1970-01-01 00:00:00.000+00', 't')`,
    );
  },
];
