/* TLS before HTTP/2, by OpenSSL: records in and out of buffers, handshakes, and who the peer is.
 *
 * OpenSSL sees no socket. Received bytes lie in `wire` while it reads them, and what it writes goes to `sealed`, which
 * the loop sends; so it never waits, and many small records leave in one send. */
#ifndef HR_TLS_H
#define HR_TLS_H

#include <openssl/bio.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "hr_tls_context.h"

enum {
    HR_TLS_HANDSHAKE_BYTES_MAX = 64 << 10,    /* of a client, chain included */
    HR_TLS_DAYS_MAX = 36500,                  /* of a certificate, counted in nanoseconds */
    HR_TLS_URI_BYTES_MAX = 2048               /* of a SPIFFE ID */
};

/* ---- bytes ---- */

static int hr_bio_read(BIO *bio, char *to, size_t room, size_t *bytes)
{
    hr_connection *connection = BIO_get_data(bio);
    size_t left = hr_span_bytes(connection->wire);
    BIO_clear_retry_flags(bio);
    *bytes = left < room ? left : room;
    if (*bytes == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(to, connection->wire.at, *bytes);
    connection->wire.at += *bytes;
    return 1;
}

static int hr_bio_write(BIO *bio, const char *from, size_t bytes, size_t *written)
{
    hr_connection *connection = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *written = bytes;
    return hr_buffer_add(&connection->sealed, from, bytes) == HR_OK;
}

static long hr_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static int hr_bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static inline BIO_METHOD *hr_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "headrace");
    if (method == NULL) return NULL;
    BIO_meth_set_read_ex(method, hr_bio_read);
    BIO_meth_set_write_ex(method, hr_bio_write);
    BIO_meth_set_ctrl(method, hr_bio_control);
    BIO_meth_set_create(method, hr_bio_create);
    return method;
}

/* ---- who the peer is ---- */

/* Identity of a name of a kind, "uri" or "name": headrace/serving/certificates.py makes the same. */
static inline void hr_tls_name(const char *kind, const uint8_t *name, size_t bytes, uint8_t *identity)
{
    uint8_t text[8 + HR_TLS_URI_BYTES_MAX];
    size_t kind_bytes = strlen(kind);
    memcpy(text, kind, kind_bytes);
    text[kind_bytes] = ':';
    memcpy(text + kind_bytes + 1, name, bytes);
    SHA256(text, kind_bytes + 1 + bytes, identity);
}

/* Names without zero bytes alone, as others would read a different one. */
static inline int hr_tls_is_name(const uint8_t *name, int bytes)
{
    return bytes > 0 && bytes <= HR_TLS_URI_BYTES_MAX && memchr(name, 0, (size_t)bytes) == NULL;
}

/* The first common name of the subject, of a certificate without URI. */
static inline int hr_tls_common_name(X509 *certificate, uint8_t *identity)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1), bytes, is_good;
    uint8_t *text = NULL;
    if (at < 0) return 0;
    bytes = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    is_good = bytes > 0 && hr_tls_is_name(text, bytes);
    if (is_good) hr_tls_name("name", text, (size_t)bytes, identity);
    OPENSSL_free(text);
    return is_good;
}

/* The URI among the alternative names, which must be the only one; without any the common name. */
static inline int hr_tls_identity(X509 *certificate, uint8_t *identity)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int count = 0, is_good = 0;
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
        if (name->type != GEN_URI) continue;
        count++;
        is_good = hr_tls_is_name(ASN1_STRING_get0_data(uri), ASN1_STRING_length(uri));
        if (is_good) hr_tls_name("uri", ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri), identity);
    }
    GENERAL_NAMES_free(names);
    if (count == 0) return hr_tls_common_name(certificate, identity);
    return count == 1 && is_good;
}

/* What the back is told of an identity: our secret before it. */
static inline void hr_tls_forwarded(const hr_server *server, const uint8_t *identity, char *text)
{
    memcpy(text, server->secret, HR_TLS_SECRET_BYTES);
    for (int i = 0; i < HR_TLS_IDENTITY_BYTES; i++) snprintf(text + HR_TLS_SECRET_BYTES + 2 * i, 3, "%02x", identity[i]);
}

/* Notes who the client is, and until when. OpenSSL has verified the chain by now. */
static inline void hr_tls_note_peer(hr_connection *connection)
{
    X509 *certificate = SSL_get_peer_certificate(connection->tls);
    int days, seconds;
    if (certificate != NULL && SSL_get_verify_result(connection->tls) == X509_V_OK
        && ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate))) {
        int64_t left_s = (days < HR_TLS_DAYS_MAX ? days : HR_TLS_DAYS_MAX) * 86400LL + seconds;
        connection->has_identity = hr_tls_identity(certificate, connection->identity);
        connection->identity_until_ns = connection->loop->now_ns + left_s * HR_H2_SECOND;
        hr_tls_forwarded(connection->loop->server, connection->identity, connection->forwarded_identity);
    }
    X509_free(certificate);
}

/* A certificate that is over speaks for nobody: its client is told to leave, and comes back with another. */
static inline void hr_tls_tick(hr_connection *connection)
{
    if (!connection->has_identity || connection->loop->now_ns < connection->identity_until_ns) return;
    connection->has_identity = 0;
    connection->is_expired = 1;
    connection->authorization_bytes = 0;
    connection->access_granted = 0;
}

/* ---- a connection ---- */

static inline void hr_tls_leave_line(hr_connection *connection)
{
    hr_loop *loop = connection->loop;
    if (!connection->is_shaking) return;
    connection->is_shaking = 0;
    if (connection->shaking_previous != NULL) connection->shaking_previous->shaking_next = connection->shaking_next;
    else loop->shaking_first = connection->shaking_next;
    if (connection->shaking_next != NULL) connection->shaking_next->shaking_previous = connection->shaking_previous;
    else loop->shaking_last = connection->shaking_previous;
    loop->shaking_count--;
}

static inline void hr_tls_join_line(hr_connection *connection)
{
    hr_loop *loop = connection->loop;
    connection->is_shaking = 1;
    connection->shaking_previous = loop->shaking_last;
    if (loop->shaking_last != NULL) loop->shaking_last->shaking_next = connection;
    else loop->shaking_first = connection;
    loop->shaking_last = connection;
    loop->shaking_count++;
}

/* Begins the handshake where the server has a certificate. Returns HR_OK or that there is no memory. */
static inline int hr_tls_begin(hr_connection *connection)
{
    hr_server *server = connection->loop->server;
    BIO *bio;
    if (server->bio_method == NULL) return HR_OK;
    hr_lock_shared(&server->access_lock);
    if (server->tls != NULL) connection->tls = SSL_new(server->tls);  /* holds the context while it lives */
    hr_unlock_shared(&server->access_lock);
    if (connection->tls == NULL) return HR_E_NO_MEMORY;
    bio = BIO_new(server->bio_method);
    if (bio == NULL) {
        SSL_free(connection->tls);
        return HR_E_NO_MEMORY;
    }
    BIO_set_data(bio, connection);
    SSL_set_bio(connection->tls, bio, bio);
    SSL_set_app_data(connection->tls, connection);
    SSL_set_accept_state(connection->tls);
    hr_tls_join_line(connection);
    return HR_OK;
}

static inline void hr_tls_free(hr_connection *connection)
{
    hr_tls_leave_line(connection);
    SSL_free(connection->tls);
    connection->tls = NULL;
    hr_buffer_free(&connection->sealed);
}

/* Notes a handshake's end. Returns 0 where it ended badly. */
static inline int hr_tls_shake(hr_connection *connection)
{
    const uint8_t *protocol;
    unsigned bytes;
    if (SSL_do_handshake(connection->tls) != 1)
        return connection->handshake_bytes <= HR_TLS_HANDSHAKE_BYTES_MAX
            && SSL_get_error(connection->tls, 0) == SSL_ERROR_WANT_READ;
    SSL_get0_alpn_selected(connection->tls, &protocol, &bytes);
    if (bytes != 2 || memcmp(protocol, hr_tls_h2 + 1, 2) != 0) return 0;
    hr_tls_leave_line(connection);
    hr_tls_note_peer(connection);
    hr_count(&connection->loop->counts.handshakes, 1);
    return 1;
}

/* Gives received bytes to the session. Returns 0 where the peer is gone or has broken a rule. */
static inline int hr_tls_receive(hr_connection *connection, const uint8_t *data, size_t bytes)
{
    hr_loop *loop = connection->loop;
    int is_good = 1;
    connection->wire = (hr_span){data, data + bytes};
    ERR_clear_error();  /* what another connection left would be taken for ours */
    if (connection->is_shaking) {
        connection->handshake_bytes += bytes;
        if (!hr_tls_shake(connection)) {
            hr_count(&loop->counts.failed_handshakes, 1);
            is_good = 0;
        }
    }
    while (is_good && !connection->is_shaking && !connection->is_closing) {
        size_t got = 0;
        if (SSL_read_ex(connection->tls, loop->plain, sizeof(loop->plain), &got) != 1) {
            is_good = SSL_get_error(connection->tls, 0) == SSL_ERROR_WANT_READ;
            break;
        }
        is_good = nghttp2_session_mem_recv(connection->front, loop->plain, got) >= 0;
        if (hr_span_bytes(connection->wire) == 0 && !SSL_has_pending(connection->tls)) break;  /* nothing is left to ask for */
    }
    connection->wire = (hr_span){NULL, NULL};
    return is_good;
}

/* Makes records of what waits, unless enough of them wait already. */
static inline int hr_tls_seal(hr_connection *connection)
{
    hr_buffer *out = &connection->front_out;
    ERR_clear_error();
    while (!connection->is_shaking && hr_buffer_bytes(out) > 0 && hr_buffer_bytes(&connection->sealed) < HR_H2_OUT_BYTES) {
        size_t written;
        if (SSL_write_ex(connection->tls, out->data + out->start, hr_buffer_bytes(out), &written) != 1) return HR_E_NO_MEMORY;
        hr_buffer_take(out, written);
    }
    return HR_OK;
}

/* Says goodbye, as far as the socket takes it. */
static inline void hr_tls_end(hr_connection *connection)
{
    hr_buffer *sealed = &connection->sealed;
    ERR_clear_error();
    if (!connection->is_shaking) SSL_shutdown(connection->tls);
    if (hr_buffer_bytes(sealed) == 0) return;
    ssize_t ignored = send(
        connection->front_source.fd, sealed->data + sealed->start, hr_buffer_bytes(sealed), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)ignored;
}

#endif
