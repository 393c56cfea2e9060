// package: npm:mysql2@3
// behind: mysql
// does: a table, prepared statements, types, a transaction, an error's code, a wrong password
import mysql from 'mysql2';

export default [
  async ({ configuration: { mariadb, closed } }) => {
    const connection = await mysql.createConnection(mariadb).promise();
    await connection.query('CREATE TEMPORARY TABLE visits (id INT PRIMARY KEY AUTO_INCREMENT, place VARCHAR(40) UNIQUE, weight DECIMAL(5,2), note BLOB)');
    const [inserted] = await connection.execute('INSERT INTO visits (place, weight, note) VALUES (?, ?, ?)', ['Accra', 61.5, Buffer.from([0, 255])]);
    same([inserted.insertId, inserted.affectedRows], [1, 1]);
    await connection.query('INSERT INTO visits (place) VALUES ?', [[['Tamale'], ["Wa's"]]]);
    const [rows, fields] = await connection.execute('SELECT place, weight FROM visits WHERE id < ? ORDER BY id', [3]);
    same(rows, [{ place: 'Accra', weight: '61.50' }, { place: 'Tamale', weight: null }]);
    same(fields.map(field => field.name), ['place', 'weight']);
    same([...(await connection.query('SELECT note FROM visits WHERE id = 1'))[0][0].note], [0, 255]);
    same((await failure(() => connection.query("INSERT INTO visits (place) VALUES ('Accra')"))).code, 'ER_DUP_ENTRY');
    same((await failure(() => connection.query('SELEC 1'))).code, 'ER_PARSE_ERROR');
    await connection.beginTransaction();
    await connection.query('DELETE FROM visits');
    await connection.rollback();
    await connection.end();
    const pool = mysql.createPool({ ...mariadb, connectionLimit: 2 }).promise();
    const answers = await Promise.all([1, 2, 3].map(n => pool.query('SELECT ? + 1 AS n', [n])));
    same(answers.map(([[row]]) => row.n), [2, 3, 4]);
    await pool.end();
    const connect = options => new Promise((resolve, reject) =>
      mysql.createConnection({ ...mariadb, ...options }).connect(error => (error ? reject(error) : resolve())));
    same((await failure(() => connect({ password: 'wrong' }))).code, 'ER_ACCESS_DENIED_ERROR');
    same((await failure(() => connect({ port: closed }))).code, 'ECONNREFUSED');
  },
];
