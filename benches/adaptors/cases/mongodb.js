// package: npm:mongodb@3.7
// behind: mongodb
// does: BSON there and back, tries to connect, and says why it cannot
// only loads: Debian has no MongoDB
import mongodb from 'mongodb';

export default [
  async ({ configuration: { closed } }) => {
    const id = new mongodb.ObjectId('507f1f77bcf86cd799439011');
    same([id.getTimestamp().toISOString(), new mongodb.ObjectId().toHexString().length], ['2012-10-17T21:13:27.000Z', 24]);
    const client = new mongodb.MongoClient(`mongodb://127.0.0.1:${closed}/clinic`, {
      useUnifiedTopology: true,
      serverSelectionTimeoutMS: 200,
    });
    const error = await failure(() => client.connect());
    same([error.name, error.message.includes('ECONNREFUSED')], ['MongoServerSelectionError', true]);
  },
];
