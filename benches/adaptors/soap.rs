//! A SOAP service with one operation, and its description, for the packages that speak SOAP.

use crate::http_server::{Reply, Request, Server};

pub fn serve() -> Server {
    Server::with(answer)
}

fn answer(request: &Request) -> Reply {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/greeter") => {
            let origin = format!("http://{}", request.header("host").unwrap_or("localhost"));
            Reply::new(200, "text/xml", WSDL.replace("ORIGIN", &origin))
        }
        ("POST", "/greeter") => {
            let body = String::from_utf8_lossy(&request.body);
            match between(&body, "name>", "<") {
                Some("nobody") => Reply::new(500, "text/xml", envelope(FAULT)),
                Some(name) => {
                    let greeting = format!(
                        "<GreetResponse xmlns=\"urn:greeter\"><greeting>Hello {name}</greeting></GreetResponse>"
                    );
                    Reply::new(200, "text/xml", envelope(&greeting))
                }
                None => Reply::empty(400),
            }
        }
        _ => Reply::empty(404),
    }
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(behind).map(|(inside, _)| inside)
}

fn envelope(body: &str) -> String {
    format!(
        "<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body>{body}</soap:Body></soap:Envelope>"
    )
}

const FAULT: &str =
    "<soap:Fault><faultcode>soap:Client</faultcode><faultstring>nobody is there</faultstring></soap:Fault>";

const WSDL: &str = r#"<?xml version="1.0"?>
<definitions name="Greeter" targetNamespace="urn:greeter" xmlns:tns="urn:greeter"
    xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/"
    xmlns:xsd="http://www.w3.org/2001/XMLSchema">
  <types>
    <xsd:schema targetNamespace="urn:greeter" elementFormDefault="qualified">
      <xsd:element name="Greet">
        <xsd:complexType><xsd:sequence><xsd:element name="name" type="xsd:string"/></xsd:sequence></xsd:complexType>
      </xsd:element>
      <xsd:element name="GreetResponse">
        <xsd:complexType><xsd:sequence><xsd:element name="greeting" type="xsd:string"/></xsd:sequence></xsd:complexType>
      </xsd:element>
    </xsd:schema>
  </types>
  <message name="GreetRequest"><part name="parameters" element="tns:Greet"/></message>
  <message name="GreetResponse"><part name="parameters" element="tns:GreetResponse"/></message>
  <portType name="Greeter">
    <operation name="Greet"><input message="tns:GreetRequest"/><output message="tns:GreetResponse"/></operation>
  </portType>
  <binding name="Greeter" type="tns:Greeter">
    <soap:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="Greet">
      <soap:operation soapAction="urn:greeter#Greet"/>
      <input><soap:body use="literal"/></input>
      <output><soap:body use="literal"/></output>
    </operation>
  </binding>
  <service name="Greeter">
    <port name="Greeter" binding="tns:Greeter"><soap:address location="ORIGIN/greeter"/></port>
  </service>
</definitions>
"#;
