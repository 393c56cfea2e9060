// package: npm:knex
// behind: mysql
// does: builds and formats SQL for five databases, without connecting
// only loads: the connection is that of a driver, see pg and mysql2
import knex from 'knex';

export default [
  () => {
    for (const client of ['mysql2', 'pg', 'mssql', 'sqlite3', 'oracledb']) {
      const builder = knex.default ? knex.default({ client }) : knex({ client });
      const query = builder('visits').where({ place: "Wa's" }).andWhere('n', '>', 1).orderBy('n').limit(2);
      same(query.toString().includes("Wa''s") || query.toString().includes("Wa\\'s"), true);
      same(typeof query.toSQL().sql, 'string');
    }
  },
];
