//! The adaptors OpenFn publishes, by their short names.
//!
//! The table decides what a bare word means without asking anyone: `http` is `@openfn/language-http`, while `lodash`
//! may be either an adaptor younger than this table or a plain package, so only the registry can tell. It is also
//! where suggestions for misspelt names come from. A new adaptor missing here still installs; it costs one request.

/// Short names of the published adaptors, sorted.
const SHORT_NAMES: [&str; 108] = [
    "arcgis",
    "asana",
    "aws-s3",
    "azure-storage",
    "beyonic",
    "bigquery",
    "browserless",
    "cartodb",
    "chatgpt",
    "cht",
    "claude",
    "collections",
    "commcare",
    "common",
    "dagu",
    "dhis2",
    "divoc",
    "dynamics",
    "erpnext",
    "et-mfr",
    "facebook",
    "fhir",
    "fhir-4",
    "fhir-eswatini",
    "fhir-fr",
    "fhir-ndr-et",
    "fhir-opensrp",
    "flutterwave",
    "formsg",
    "gemini",
    "ghana-bdr",
    "ghana-nia",
    "gmail",
    "godata",
    "googledrive",
    "googlehealthcare",
    "googlesheets",
    "hive",
    "http",
    "hubtel",
    "ibipimo",
    "ihris",
    "image-utils",
    "inform",
    "intuit",
    "khanacademy",
    "kobotoolbox",
    "lamisplus",
    "langfuse",
    "magpi",
    "mailchimp",
    "mailgun",
    "maximo",
    "medicmobile",
    "memento",
    "minio",
    "mogli",
    "mojatax",
    "mongodb",
    "monnify",
    "motherduck",
    "mpesa",
    "msgraph",
    "mssql",
    "msupply",
    "mtn-momo",
    "mysql",
    "nexmo",
    "ocl",
    "odk",
    "odoo",
    "openboxes",
    "opencrvs",
    "openelis",
    "openfn",
    "openhim",
    "openimis",
    "openlmis",
    "openmrs",
    "openspp",
    "pdfshift",
    "pesapal",
    "ping",
    "postgresql",
    "primero",
    "progres",
    "puntosolidario-rd",
    "rapidpro",
    "redis",
    "resourcemap",
    "salesforce",
    "santempi",
    "satusehat",
    "senaite",
    "sftp",
    "siuben-rd",
    "stripe",
    "sunbird-rc",
    "surveycto",
    "telerivet",
    "testing",
    "twilio",
    "varo",
    "vtiger",
    "whatsapp",
    "wigal-sms",
    "zata",
    "zoho",
];

/// The npm scope and prefix of every OpenFn adaptor.
pub const PREFIX: &str = "@openfn/language-";

/// Whether `word` is the short name of a published adaptor.
pub fn is_adaptor(word: &str) -> bool {
    SHORT_NAMES.binary_search(&word).is_ok()
}

/// The published adaptor whose name is closest to `name` (short or full), if any is close enough to be a slip of the
/// keyboard.
pub fn closest(name: &str) -> Option<&'static str> {
    let word = name.strip_prefix(PREFIX).unwrap_or(name);
    SHORT_NAMES
        .iter()
        .map(|known| (strsim::jaro_winkler(word, known), *known))
        .filter(|(likeness, _)| *likeness >= 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_lookups_find_every_name() {
        assert!(SHORT_NAMES.is_sorted());
        assert!(SHORT_NAMES.iter().all(|name| is_adaptor(name)));
    }

    #[test]
    fn a_slip_of_the_keyboard_finds_its_adaptor() {
        assert_eq!(closest("htpt"), Some("http"));
        assert_eq!(closest("@openfn/language-slaesforce"), Some("salesforce"));
        assert_eq!(closest("zzzz"), None);
    }
}
