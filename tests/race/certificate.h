/* A certificate of its own, made at the start of a program, as PEM: it is its own authority, and names CERTIFICATE_NAME. */
#ifndef CERTIFICATE_H
#define CERTIFICATE_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "hr_wire.h"

#define CERTIFICATE_NAME "race"

typedef struct {
    X509 *certificate;
    EVP_PKEY *key;
    hr_span certificate_pem, key_pem;
} own_certificate;

static hr_span taken(BIO *bio)
{
    char *data;
    long bytes = BIO_get_mem_data(bio, &data);
    uint8_t *copied = malloc((size_t)bytes);
    memcpy(copied, data, (size_t)bytes);
    BIO_free(bio);
    return (hr_span){copied, copied + bytes};
}

static own_certificate make_certificate(void)
{
    own_certificate made = {X509_new(), EVP_EC_gen("P-256"), {NULL, NULL}, {NULL, NULL}};
    X509_NAME *name = X509_get_subject_name(made.certificate);
    BIO *certificate = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_mem());
    ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(made.certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(made.certificate), 86400);
    X509_set_pubkey(made.certificate, made.key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)CERTIFICATE_NAME, -1, -1, 0);
    X509_set_issuer_name(made.certificate, name);
    if (X509_sign(made.certificate, made.key, EVP_sha256()) == 0 || PEM_write_bio_X509(certificate, made.certificate) != 1
        || PEM_write_bio_PrivateKey(key, made.key, NULL, NULL, 0, NULL, NULL) != 1)
        exit(2);
    made.certificate_pem = taken(certificate), made.key_pem = taken(key);
    return made;
}

/* A context of clients: they speak h2, and show the certificate where `shows`. */
static SSL_CTX *client_context(const own_certificate *own, int shows)
{
    static const unsigned char h2[] = {2, 'h', '2'};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_alpn_protos(context, h2, sizeof(h2));
    if (shows && (SSL_CTX_use_certificate(context, own->certificate) != 1 || SSL_CTX_use_PrivateKey(context, own->key) != 1))
        exit(2);
    return context;
}

#endif
