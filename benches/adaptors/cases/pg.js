// package: npm:pg
// behind: postgresql
// does: TLS and SCRAM, a table, parameters, types, a transaction, a pool, notifications, an error's code
import pg from 'pg';

export default [
  async ({ configuration: { postgresql, closed } }) => {
    const client = new pg.Client({ ...postgresql, ssl: { rejectUnauthorized: false } });
    await client.connect();
    same((await client.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')).rows, [{ ssl: true }]);
    await client.query('DROP TABLE IF EXISTS visits');
    await client.query('CREATE TABLE visits (id serial PRIMARY KEY, place text UNIQUE, weight numeric, at timestamptz, tags jsonb)');
    const insert = 'INSERT INTO visits (place, weight, at, tags) VALUES ($1, $2, $3, $4) RETURNING id';
    same((await client.query(insert, ['Accra', 61.5, new Date(0), { a: [1] }])).rows, [{ id: 1 }]);
    const { rows, fields } = await client.query('SELECT * FROM visits WHERE place = $1', ['Accra']);
    same(rows, [{ id: 1, place: 'Accra', weight: '61.5', at: '1970-01-01T00:00:00.000Z', tags: { a: [1] } }]);
    same(fields.map(field => field.name), ['id', 'place', 'weight', 'at', 'tags']);
    await client.query('BEGIN');
    same((await failure(() => client.query(insert, ['Accra', 1, null, null]))).code, '23505');
    await client.query('ROLLBACK');
    same((await failure(() => client.query('SELEC 1'))).code, '42601');
    await client.query('LISTEN news');
    const notified = new Promise(resolve => client.once('notification', resolve));
    await client.query("NOTIFY news, 'hello'");
    same((await notified).payload, 'hello');
    await client.end();

    const pool = new pg.Pool({ ...postgresql, max: 3 });
    const answers = await Promise.all([1, 2, 3, 4].map(n => pool.query('SELECT $1::int AS n', [n])));
    same(answers.map(answer => answer.rows[0].n), [1, 2, 3, 4]);
    await pool.end();

    same((await failure(() => new pg.Client({ ...postgresql, password: 'wrong' }).connect())).code, '28P01');
    same((await failure(() => new pg.Client({ ...postgresql, port: closed }).connect())).code, 'ECONNREFUSED');
  },
];
