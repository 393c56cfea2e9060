// package: npm:soap@1
// behind: none yet; widely used
// does: reads a service's description, calls its operation, a fault
import soap from 'soap';

export default [
  async ({ configuration: { soap: service } }) => {
    const client = await soap.createClientAsync(`${service}/greeter?wsdl`);
    same(Object.keys(client.describe().Greeter.Greeter), ['Greet']);
    const [answer, text] = await client.GreetAsync({ name: 'Amina & Kofi' });
    same([answer, text.includes('<soap:Envelope')], [{ greeting: 'Hello Amina & Kofi' }, true]);
    const fault = await failure(() => client.GreetAsync({ name: 'nobody' }));
    same(fault.message.includes('nobody is there'), true);
  },
];
