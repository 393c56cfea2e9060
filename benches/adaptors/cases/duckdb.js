// package: npm:@duckdb/node-api
// behind: motherduck
// does: a query
// fails: it is machine code (N-API) with a JavaScript wrapper, and a run loads no machine code
import { DuckDBInstance } from '@duckdb/node-api';

export default [
  async () => {
    const connection = await (await DuckDBInstance.create(':memory:')).connect();
    same((await connection.runAndReadAll('SELECT 42 AS n')).getRows(), [[42]]);
  },
];
