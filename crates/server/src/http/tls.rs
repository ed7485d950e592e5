//! TLS by certificate files.

use crate::options::TlsFiles;
use crate::server::ServeError;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What makes connections secure with a certificate.
///
/// # Errors
/// Files that cannot be read, that are not PEM, or do not belong together.
pub fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let refuse = |path: &std::path::Path, problem: String| ServeError::Tls {
        path: path.to_owned(),
        problem,
    };
    let certificate = &files.certificate;
    let chain = CertificateDer::pem_file_iter(certificate);
    let chain = chain.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| refuse(certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(refuse(certificate, "it has no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|e| refuse(&files.key, e.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|e| refuse(certificate, e.to_string()))?;
    let config = config.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|e| refuse(certificate, e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
