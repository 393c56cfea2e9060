// package: npm:tedious@18.6.1
// behind: mssql
// does: tries to connect, and says why it cannot
// only loads: Debian has no Microsoft SQL Server
import { Connection, Request, TYPES } from 'tedious';

export default [
  async ({ configuration: { closed } }) => {
    const connection = new Connection({
      server: '127.0.0.1',
      authentication: { type: 'default', options: { userName: 'nurse', password: 'secret' } },
      options: { port: closed, encrypt: true, trustServerCertificate: true, connectTimeout: 2000 },
    });
    const request = new Request('SELECT @n', () => {});
    request.addParameter('n', TYPES.Int, 1);
    const connected = () => new Promise((resolve, reject) => connection.connect(error => (error ? reject(error) : resolve())));
    same((await failure(connected)).code, 'ESOCKET');
  },
];
