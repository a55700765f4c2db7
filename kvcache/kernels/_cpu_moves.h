/* How some tokens of a batch's row are moved: copied or added to, through the processor's caches or past them.
 *
 * Included by _cpu_kernels.c, which checks what is given and says which tokens.
 */
#include <stdint.h>
#include <string.h>

/* As many copies as there are kinds of processors; which one runs is chosen when this is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && (defined(__clang__) ? __clang_major__ >= 14 : defined(__GNUC__))
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* Stores past the caches; whether the processor has them is asked when they are needed. */
#if defined(__x86_64__) && (defined(__clang__) || defined(__GNUC__))
#include <immintrin.h>
#define HAS_STREAMS
#define STREAMING __attribute__((target("avx")))
#define HALVES __attribute__((target("avx2,f16c"))) /* no processor has only the one */
#endif

/* A batch [C, B, H, T, D]: the keys and values of all layers are its kinds C. A token of a row has a place,
 * t x B + b. Tokens i = 0, 1, ... are at places[i]; without places at first x B + i. */
typedef struct {
    char *memory;
    int64_t kinds, rows, heads, tokens, bytes; /* C, B, H, T; bytes of D elements */
    const int64_t *places;
    int64_t first;
} Batch;

/* Where token i of a batch's first head begins; further heads are next_head behind each other. */
static char *begin(const Batch *batch, int64_t i) {
    int64_t place = batch->places ? batch->places[i] : batch->first * batch->rows + i;
    return batch->memory + (place % batch->rows * batch->heads * batch->tokens + place / batch->rows) * batch->bytes;
}

static int64_t next_head(const Batch *batch) { return batch->tokens * batch->bytes; }

static int64_t next_kind(const Batch *batch) { return batch->rows * batch->heads * next_head(batch); }

static int64_t token_bytes(const Batch *batch) { return batch->kinds * batch->heads * batch->bytes; }

/* Consecutive tokens of a row of a batch. Moved together, what is written of each head is consecutive. */
enum { LONGEST_RUN = 4 };

typedef struct {
    char *batch; /* the first token, in the first head */
    char *rows[LONGEST_RUN]; /* of the pool */
    const char *shifts[LONGEST_RUN];
    int64_t count;
} Run;

typedef void (*Move)(const Batch *, const Run *);

/* A function that moves a run. PUT(batch, row, shift, bytes) does so for one head of one token. */
#define MOVE(NAME, PUT)                                                                                           \
    static void NAME(const Batch *batch, const Run *run) {                                                        \
        char *to = run->batch;                                                                                    \
        int64_t at = 0, bytes = batch->bytes;                                                                     \
        for (int64_t kind = 0; kind < batch->kinds; kind++, to += next_kind(batch))                               \
            for (int64_t head = 0; head < batch->heads; head++, at += bytes)                                      \
                for (int64_t n = 0; n < run->count; n++)                                                          \
                    PUT(to + head * next_head(batch) + n * bytes, run->rows[n] + at, run->shifts[n] + at, bytes); \
    }
#define PUT(NAME) static inline void NAME(char *batch, char *row, const char *shift, int64_t bytes)

PUT(copy) { memcpy(batch, row, (size_t)bytes); }
PUT(copy_back) { memcpy(row, batch, (size_t)bytes); }
#define ADD(TYPE)                                                                          \
    PUT(add_##TYPE) {                                                                      \
        for (int64_t i = 0; i < bytes / (int64_t)sizeof(TYPE); i++)                        \
            ((TYPE *)batch)[i] = ((const TYPE *)row)[i] + ((const TYPE *)shift)[i];        \
    }
ADD(float)
ADD(double)

MOVE(gather_copy, copy)
FOR_EACH_PROCESSOR MOVE(gather_float, add_float)
FOR_EACH_PROCESSOR MOVE(gather_double, add_double)
MOVE(scatter_copy, copy_back)

/* From so many bytes on what is written goes past the processor's caches. Otherwise each line is read before it is
 * written, and evicts what is still to be read. With fewer bytes the next reader needs the time that the write saves. */
enum { STREAM_FROM = 8 << 20, LINE = 64 };

#ifdef HAS_STREAMS
#define STREAM(NAME, TO, VALUE)                                                               \
    STREAMING PUT(NAME) {                                                                     \
        for (int64_t i = 0; i < bytes; i += (int64_t)sizeof(__m256))                          \
            _mm256_stream_ps((float *)((TO) + i), VALUE);                                     \
    }
#define FLOATS(FROM) _mm256_loadu_ps((const float *)((FROM) + i))
#define DOUBLES(FROM) _mm256_loadu_pd((const double *)((FROM) + i))
STREAM(stream, batch, FLOATS(row))
STREAM(stream_back, row, FLOATS(batch))
STREAM(stream_float, batch, _mm256_add_ps(FLOATS(row), FLOATS(shift)))
STREAM(stream_double, batch, _mm256_castpd_ps(_mm256_add_pd(DOUBLES(row), DOUBLES(shift))))

STREAMING MOVE(gather_stream, stream)
STREAMING MOVE(gather_stream_float, stream_float)
STREAMING MOVE(gather_stream_double, stream_double)
STREAMING MOVE(scatter_stream, stream_back)

/* Halves are added as floats, and rounded once to the nearest, ties to the even one, as torch does. */
HALVES static inline __m128i sum_bfloat16(__m128i a, __m128i b) {
    __m256 left = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
    __m256 sum = _mm256_add_ps(left, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(b), 16)));
    __m256i bits = _mm256_castps_si256(sum), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256 is_nan = _mm256_cmp_ps(sum, sum, _CMP_UNORD_Q), nan = _mm256_set1_ps(__builtin_nanf(""));
    bits = _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), nan, is_nan));
    bits = _mm256_srli_epi32(bits, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}

HALVES static inline __m128i sum_float16(__m128i a, __m128i b) {
    return _mm256_cvtps_ph(_mm256_add_ps(_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)), _MM_FROUND_TO_NEAREST_INT);
}

#define SUM_AT(TYPE) sum_##TYPE(_mm_loadu_si128((const __m128i *)(row + i)), _mm_loadu_si128((const __m128i *)(shift + i)))
#define ADD_HALVES(TYPE)                                                                                     \
    HALVES PUT(stream_##TYPE) {                                                                              \
        for (int64_t i = 0; i < bytes; i += (int64_t)sizeof(__m128i))                                        \
            _mm_stream_si128((__m128i *)(batch + i), SUM_AT(TYPE));                                          \
    }                                                                                                        \
    HALVES PUT(add_##TYPE) {                                                                                 \
        int64_t i = 0;                                                                                       \
        for (; i + (int64_t)sizeof(__m128i) <= bytes; i += (int64_t)sizeof(__m128i))                         \
            _mm_storeu_si128((__m128i *)(batch + i), SUM_AT(TYPE));                                          \
        __m128i last_of_row = _mm_setzero_si128(), last_of_shift = last_of_row;                              \
        memcpy(&last_of_row, row + i, (size_t)(bytes - i));                                                  \
        memcpy(&last_of_shift, shift + i, (size_t)(bytes - i));                                              \
        last_of_row = sum_##TYPE(last_of_row, last_of_shift);                                                \
        memcpy(batch + i, &last_of_row, (size_t)(bytes - i));                                                \
    }                                                                                                        \
    HALVES MOVE(gather_##TYPE, add_##TYPE)                                                                   \
    HALVES MOVE(gather_stream_##TYPE, stream_##TYPE)
ADD_HALVES(bfloat16)
ADD_HALVES(float16)

static int adds_halves(void) { return __builtin_cpu_supports("avx2"); }

static int streams(const Batch *batch, int64_t count, const char *to) {
    return count * token_bytes(batch) >= STREAM_FROM && batch->bytes % LINE == 0 && (intptr_t)to % LINE == 0 &&
           __builtin_cpu_supports("avx");
}

static void end_streams(void) { _mm_sfence(); }
#else
#define gather_stream gather_copy
#define gather_stream_float gather_float
#define gather_stream_double gather_double
#define scatter_stream scatter_copy
#define gather_bfloat16 NULL
#define gather_stream_bfloat16 NULL
#define gather_float16 NULL
#define gather_stream_float16 NULL

static int adds_halves(void) { return 0; }

static int streams(const Batch *batch, int64_t count, const char *to) { return 0; }

static void end_streams(void) {}
#endif

/* Types of what is added, and how they are gathered: through the caches, and past them. */
enum { FLOAT, DOUBLE, BFLOAT16, FLOAT16, TYPES };
static const Move gather_added[TYPES][2] = {
    {gather_float, gather_stream_float},
    {gather_double, gather_stream_double},
    {gather_bfloat16, gather_stream_bfloat16},
    {gather_float16, gather_stream_float16},
};
