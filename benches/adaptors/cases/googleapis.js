// package: npm:googleapis@171.4.0
// behind: gmail, googledrive, googlesheets
// does: reads and appends to a sheet, lists files, an error's status, all against a stand-in
// answers: GET /v4/spreadsheets/sheet/values/A1%3AB2 200 {"values":[["name","age"],["Amina","31"]]}
// answers: POST /v4/spreadsheets/sheet/values/A1:append 200 {"updates":{"updatedRows":1}}
// answers: GET /drive/v3/files 200 {"files":[{"id":"1","name":"a.txt"}]}
// answers: GET /v4/spreadsheets/absent 404 {"error":{"code":404,"message":"Requested entity was not found."}}
import { google } from 'googleapis';

export default [
  async ({ configuration: { service } }) => {
    const auth = new google.auth.OAuth2();
    auth.setCredentials({ access_token: 'token' });
    const sheets = google.sheets({ version: 'v4', auth, rootUrl: `${service}/` });
    const { values } = sheets.spreadsheets;
    same((await values.get({ spreadsheetId: 'sheet', range: 'A1:B2' })).data.values[1], ['Amina', '31']);
    const row = { spreadsheetId: 'sheet', range: 'A1', valueInputOption: 'RAW', requestBody: { values: [['Kofi', 4]] } };
    same((await values.append(row)).data.updates.updatedRows, 1);
    const drive = google.drive({ version: 'v3', auth, rootUrl: `${service}/` });
    same((await drive.files.list({ q: "name = 'a.txt'" })).data.files[0].name, 'a.txt');
    same((await failure(() => sheets.spreadsheets.get({ spreadsheetId: 'absent' }))).status, 404);
    const [read, appended, listed] = await seen(service);
    same([read.headers.authorization, JSON.parse(appended.body).values, listed.query.q], ['Bearer token', [['Kofi', 4]], "name = 'a.txt'"]);
  },
];
