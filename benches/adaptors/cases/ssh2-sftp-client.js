// package: npm:ssh2-sftp-client@9.0.4
// behind: sftp
// does: key login, put, list, get, append, rename, remove, a missing file, a wrong key
import Client from 'ssh2-sftp-client';

export default [
  async ({ configuration: { sftp, closed } }) => {
    const { directory, ...credential } = sftp;
    const client = new Client();
    await client.connect(credential);
    await client.put(Buffer.from('name,age\nAmina,31\n'), `${directory}/patients.csv`);
    await client.append(Buffer.from('Kofi,4\n'), `${directory}/patients.csv`);
    same((await client.get(`${directory}/patients.csv`)).toString(), 'name,age\nAmina,31\nKofi,4\n');
    await client.put(Buffer.alloc(300_000, 'x'), `${directory}/big`);
    same((await client.get(`${directory}/big`)).length, 300_000);
    same((await client.list(directory)).map(file => [file.name, file.type, file.size]).sort(), [['big', '-', 300_000], ['patients.csv', '-', 25]]);
    await client.rename(`${directory}/big`, `${directory}/small`);
    await client.delete(`${directory}/small`);
    same([await client.exists(`${directory}/small`), await client.exists(`${directory}/patients.csv`)], [false, '-']);
    same((await failure(() => client.get(`${directory}/absent`))).code, 2);
    await client.end();
    same((await failure(() => new Client().connect({ ...credential, port: closed, retries: 0 }))).code, 'ECONNREFUSED');
    const refused = await failure(() => new Client().connect({ ...credential, privateKey: undefined, password: 'wrong' }));
    same(refused.message.includes('All configured authentication methods failed'), true);
  },
];
