/* A context of TLS from PEM bytes, and the rules that every connection of it keeps.
 *
 * Resumption, tickets and renegotiation are off: connections live long, and a certificate is checked at every
 * handshake. */
#ifndef HR_TLS_CONTEXT_H
#define HR_TLS_CONTEXT_H

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "hr_h2_budget.h"

enum {
    HR_TLS_CLIENT_CHAIN_BYTES_MAX = 32 << 10,
    HR_TLS_DEPTH_MAX = 8,
    HR_TLS_RECORD_COST = 20                   /* of the budget: a handshake record after the handshake, or an alert */
};

static const uint8_t hr_tls_h2[] = {2, 'h', '2'};

/* Who comes without ALPN speaks no gRPC: refused before anything is signed. */
static int hr_tls_on_hello(SSL *tls, int *alert, void *unused)
{
    const uint8_t *data;
    size_t bytes;
    (void)unused;
    if (SSL_client_hello_get0_ext(tls, TLSEXT_TYPE_application_layer_protocol_negotiation, &data, &bytes))
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
}

static int hr_tls_on_alpn(
    SSL *tls, const uint8_t **chosen, uint8_t *chosen_bytes, const uint8_t *offered, unsigned offered_bytes, void *unused)
{
    (void)tls, (void)unused;
    if (SSL_select_next_proto((uint8_t **)chosen, chosen_bytes, hr_tls_h2, sizeof(hr_tls_h2), offered, offered_bytes)
        == OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_OK;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Handshake records and alerts after the handshake cost the client its budget: key updates, and what asks in vain for
 * another handshake. TLS 1.3 tells their type inside of the record. */
static void hr_tls_on_record(int is_sent, int version, int type, const void *data, size_t bytes, SSL *tls, void *unused)
{
    uint8_t kind = bytes > 0 ? *(const uint8_t *)data : 0;
    (void)version, (void)unused;
    if (is_sent || (type != SSL3_RT_HEADER && type != SSL3_RT_INNER_CONTENT_TYPE) || !SSL_is_init_finished(tls)) return;
    if (kind == SSL3_RT_HANDSHAKE || kind == SSL3_RT_ALERT)
        hr_spend(SSL_get_app_data(tls), HR_TLS_RECORD_COST, "too_many_records");
}

/* A key that wants a passphrase is refused; without this OpenSSL would ask at the terminal. */
static int hr_tls_no_passphrase(char *to, int room, int is_writing, void *unused)
{
    (void)to, (void)room, (void)is_writing, (void)unused;
    return -1;
}

static inline int hr_tls_add_chain(SSL_CTX *context, BIO *pem)
{
    X509 *certificate = PEM_read_bio_X509_AUX(pem, NULL, hr_tls_no_passphrase, NULL);
    int is_good = certificate != NULL && SSL_CTX_use_certificate(context, certificate) == 1;
    X509_free(certificate);
    while (is_good && (certificate = PEM_read_bio_X509(pem, NULL, hr_tls_no_passphrase, NULL)) != NULL)
        if (SSL_CTX_add0_chain_cert(context, certificate) != 1) {
            X509_free(certificate);
            is_good = 0;
        }
    if (is_good && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) ERR_clear_error();  /* the end */
    return is_good && ERR_peek_error() == 0;
}

static inline int hr_tls_add_key(SSL_CTX *context, BIO *pem)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, hr_tls_no_passphrase, NULL);
    int is_good = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(key);
    return is_good;
}

/* Clients that show a certificate must have it of one of these; who shows none is asked for a token. */
static inline int hr_tls_add_clients(SSL_CTX *context, BIO *pem)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509 *certificate;
    int count = 0, is_good = 1;
    while (is_good && (certificate = PEM_read_bio_X509(pem, NULL, hr_tls_no_passphrase, NULL)) != NULL) {
        is_good = X509_STORE_add_cert(store, certificate) == 1 && SSL_CTX_add_client_CA(context, certificate) == 1;
        count += is_good;
        X509_free(certificate);
    }
    if (is_good && count > 0 && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) ERR_clear_error();
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_verify_depth(context, HR_TLS_DEPTH_MAX);
    return is_good && count > 0 && ERR_peek_error() == 0;
}

static inline int hr_tls_set_rules(SSL_CTX *context)
{
    static const char suites[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
    SSL_CTX_set_options(
        context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(
        context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, HR_TLS_CLIENT_CHAIN_BYTES_MAX);
    SSL_CTX_set_client_hello_cb(context, hr_tls_on_hello, NULL);
    SSL_CTX_set_alpn_select_cb(context, hr_tls_on_alpn, NULL);
    SSL_CTX_set_msg_callback(context, hr_tls_on_record);
    SSL_CTX_set_security_level(context, 2);   /* 112 bits: RSA of 2,048, no SHA-1 */
    return SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1
        && SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1
        && SSL_CTX_set_ciphersuites(context, suites) == 1
        && SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") == 1;
}

/* A context of PEM bytes, `clients` empty where no client shows a certificate. NULL where they are no pair; `problem`
 * then says why. */
static inline SSL_CTX *hr_tls_context(hr_span chain, hr_span key, hr_span clients, char *problem, size_t room)
{
    BIO *chain_pem = BIO_new_mem_buf(chain.at, (int)hr_span_bytes(chain));
    BIO *key_pem = BIO_new_mem_buf(key.at, (int)hr_span_bytes(key));
    BIO *clients_pem = BIO_new_mem_buf(clients.at != NULL ? (const void *)clients.at : "", (int)hr_span_bytes(clients));
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    const char *what = "OpenSSL has no memory";
    int is_good = chain_pem != NULL && key_pem != NULL && clients_pem != NULL && context != NULL;
    ERR_clear_error();
    if (is_good) what = "the rules of TLS", is_good = hr_tls_set_rules(context);
    if (is_good) what = "the certificate", is_good = hr_tls_add_chain(context, chain_pem);
    if (is_good) what = "the key", is_good = hr_tls_add_key(context, key_pem);
    if (is_good && hr_span_bytes(clients) > 0)
        what = "the certificates of the client authority", is_good = hr_tls_add_clients(context, clients_pem);
    if (!is_good) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        snprintf(problem, room, "%s: %s", what, reason != NULL ? reason : "not usable");
        SSL_CTX_free(context);
        context = NULL;
    }
    ERR_clear_error();
    BIO_free(chain_pem), BIO_free(key_pem), BIO_free(clients_pem);
    return context;
}

#endif
