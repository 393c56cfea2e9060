// package: npm:googleapis@171.4.0
// behind: gmail, googledrive, googlesheets
// does: authorizes with a token, reads and writes a sheet and lists files against the echo, an error's status
// only loads: the services themselves are on the internet
import { google } from 'googleapis';

export default [
  async ({ configuration: { http, anything } }) => {
    const auth = new google.auth.OAuth2();
    auth.setCredentials({ access_token: 'token' });
    const sheets = google.sheets({ version: 'v4', auth, rootUrl: anything });
    const { data } = await sheets.spreadsheets.values.get({ spreadsheetId: 'sheet', range: 'A1:B2' });
    same([data.path, data.headers.authorization], ['/v4/spreadsheets/sheet/values/A1%3AB2', 'Bearer token']);
    const appended = await sheets.spreadsheets.values.append({
      spreadsheetId: 'sheet',
      range: 'A1',
      valueInputOption: 'RAW',
      requestBody: { values: [['Amina', 31]] },
    });
    same([appended.data.method, JSON.parse(appended.data.body).values[0][0]], ['POST', 'Amina']);
    const drive = google.drive({ version: 'v3', auth, rootUrl: anything });
    const listed = await drive.files.list({ q: "name = 'a.txt'" });
    same([listed.data.path, listed.data.query.q], ['/drive/v3/files', "name = 'a.txt'"]);
    const missing = google.sheets({ version: 'v4', auth, rootUrl: http });
    same((await failure(() => missing.spreadsheets.get({ spreadsheetId: 'sheet' }))).status, 404);
  },
];
