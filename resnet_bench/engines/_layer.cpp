// One convolution with batch norm: its forward and its backward pass, for the engine `fast`.
//
// `_layer.py` compiles this file, behind `_vectors.cpp`, and describes the layers to it. All numbers are float32. Maps are
// channels-last, and those that a convolution reads have a border of zeros as wide as its padding, so that no loop asks
// where a map ends.
//
// All three products of a convolution are one loop, `tile`: it adds up products of scalars with vectors in registers.
// Kernels of 3×3 with stride 1 go through a transformation that saves more than half of the multiplications.
//
// Threads share the positions of the maps, in the same way in all layers and in both directions, because a core reads
// what it has written itself in a fraction of the time that it takes to fetch what another one has written. Only where a
// kernel's gradient is added up directly (`weight_gradient`) do they share its elements, and each reads all positions.

// A map [images, height + 2 border, width + 2 border, channels].
struct Map {
  float* values;
  Index border;
};

// `_layer.py` has the same fields in the same order, and says what they are.
struct Layer {
  Index images, height, width, inputs, outputs, kernel, stride;
  float momentum, eps;
  Map x;
  const float* weight;
  float *convolved, *sums, *mean, *rstd;
  const float *scale, *shift;
  float *running_mean, *running_var;
  Index* batches_tracked;
  Map added, out;
  Index relu;
  float* gradient;
  Map convolved_gradient;
  float *weight_gradient, *scale_gradient, *shift_gradient, *transposed, *x_gradient;
  Index add_to_x_gradient;
  Index threads, winograd;
  float* partial_gradients;
  float *deviations, *channel_means;
  const float* channel_weights;
  float* channel_weights_gradient;
  const float* channel_means_gradient;

  Index out_height() const { return (height + stride - 1) / stride; }
  Index out_width() const { return (width + stride - 1) / stride; }
  Index out_positions() const { return images * out_height() * out_width(); }
};

// ---------------------------------------------------------------------------------------------------------------------
// Vectors

static inline Vector relu(Vector v) { return (Vector)((Mask)v & ~(Mask)(v <= 0.0f)); }  // of NaN it is NaN

static inline Vector where_positive(Vector v, Vector of) { return (Vector)((Mask)v & (Mask)(of > 0.0f)); }

// rows[i][j] and rows[j][i] change places: first within squares of 2×2, then of 4×4, and so on
#if defined(__clang__) || __GNUC__ >= 12
template <int S, std::size_t... L>
static inline void exchange(Vector* rows, std::index_sequence<L...>) {
  for (int i = 0; i < LANES; ++i)
    if (!(i & S)) {
      const Vector a = rows[i], b = rows[i + S];
      rows[i] = __builtin_shufflevector(a, b, (L & S ? LANES + L - S : L)...);
      rows[i + S] = __builtin_shufflevector(a, b, (L & S ? LANES + L : L + S)...);
    }
}

template <int S = 1>
static inline void transpose(Vector* rows) {
  if constexpr (S < LANES) {
    exchange<S>(rows, std::make_index_sequence<LANES>());
    transpose<2 * S>(rows);
  }
}
#else
static inline void transpose(Vector* rows) {
  for (int i = 0; i < LANES; ++i)
    for (int j = 0; j < i; ++j) {
      const float value = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = value;
    }
}
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Sums of products

// The terms of a sum: three nested loops, and how far the addresses of both factors move in each.
struct Walk {
  Index counts[3], scalars[3], vectors[3];
};

// M × N vectors of results: result (m, n) is the sum over the walk's terms of the scalar m times the vector n.
template <int M, int N, bool WHOLE>
static inline void tile(
    const float* const* scalars, const float* vectors, const Walk& walk, float* const* results, Index count, bool add) {
  const Index lanes = WHOLE ? LANES : count;
  Vector sums[M][N] = {};
  for (Index i = 0; i < walk.counts[0]; ++i)
    for (Index j = 0; j < walk.counts[1]; ++j) {
      const float* from = vectors + i * walk.vectors[0] + j * walk.vectors[1];
      const float* rows[M];
      for (int m = 0; m < M; ++m) rows[m] = scalars[m] + i * walk.scalars[0] + j * walk.scalars[1];
      for (Index k = 0; k < walk.counts[2]; ++k, from += walk.vectors[2]) {
        Vector v[N];
        for (int n = 0; n < N; ++n) v[n] = load(from + n * LANES, lanes);
        for (int m = 0; m < M; ++m)
          for (int n = 0; n < N; ++n) sums[m][n] += rows[m][k * walk.scalars[2]] * v[n];
      }
    }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      float* to = results[m] + n * LANES;
      store(to, add ? load(to, lanes) + sums[m][n] : sums[m][n], lanes);
    }
}

// `tile` for m rows, m from 1 to ROWS.
template <int N, bool WHOLE, int M = ROWS, typename... Arguments>
static inline void rows(int m, Arguments... arguments) {
  if constexpr (M > 1)
    if (m < M) return rows<N, WHOLE, M - 1>(m, arguments...);
  tile<M, N, WHOLE>(arguments...);
}

// How many channels one tile covers.
static inline Index panel(Index channels) { return channels % (VECTORS * LANES) == 0 ? VECTORS * LANES : LANES; }

// The tile that begins at `channel` of so many, with its first `count` rows.
static inline void sum(
    int count, const float* const* scalars, const float* vectors, const Walk& walk, float* const* results,
    Index channel, Index channels, bool add) {
  const Index left = channels - channel;
  if (panel(channels) > LANES)
    rows<VECTORS, true>(count, scalars, vectors, walk, results, left, add);
  else if (left >= LANES)
    rows<1, true>(count, scalars, vectors, walk, results, left, add);
  else
    rows<1, false>(count, scalars, vectors, walk, results, left, add);
}

// ---------------------------------------------------------------------------------------------------------------------
// The convolution

// The positions of the maps [images, height, width], one after the other.
struct Position {
  Index height, width, image, y, x;
  Position(Index height, Index width, Index number)
      : height(height), width(width), image(number / (height * width)), y(number / width % height), x(number % width) {}
  void next() {
    if (++x < width) return;
    x = 0;
    if (++y < height) return;
    y = 0;
    ++image;
  }
};

// Those rows (or columns) of a kernel, every `step`-th from the first, that meet the map for some output.
struct Taps {
  Index first, count;
  Taps(Index kernel, Index size, Index out_size, Index stride, Index remainder, Index step) {
    const Index padding = kernel / 2, lowest = padding - (out_size - 1) * stride, end = size + padding;
    first = lowest > 0 ? lowest : 0;
    first += ((remainder - first) % step + step) % step;
    const Index last = end < kernel ? end : kernel;
    count = first < last ? (last - first + step - 1) / step : 0;
  }
};

static inline Index tiles(Index positions) { return (positions + ROWS - 1) / ROWS; }

static inline int rows_of(Index tile, Index positions) {
  return positions - tile * ROWS < ROWS ? int(positions - tile * ROWS) : ROWS;
}

static inline float* at(const Map& map, Index height, Index width, Index channels, Index image, Index y, Index x) {
  const Index b = map.border;
  return map.values + ((image * (height + 2 * b) + y + b) * (width + 2 * b) + x + b) * channels;
}

// convolved[image, y, x, output] = Σ x[image, stride y + ky - padding, stride x + kx - padding, input] weight[ky, kx, …]
static void convolve(const Layer& l) {
  const Index height = l.out_height(), width = l.out_width(), positions = l.out_positions(), padding = l.kernel / 2;
  const Taps ky(l.kernel, l.height, height, l.stride, 0, 1), kx(l.kernel, l.width, width, l.stride, 0, 1);
  const Walk walk = {
      {1, ky.count, kx.count * l.inputs},
      {0, (l.width + 2 * l.x.border) * l.inputs, 1},
      {0, l.kernel * l.inputs * l.outputs, l.outputs}};
  const float* weight = l.weight + (ky.first * l.kernel + kx.first) * l.inputs * l.outputs;
#pragma omp for collapse(2) schedule(static) nowait
  for (Index t = 0; t < tiles(positions); ++t)
    for (Index output = 0; output < l.outputs; output += panel(l.outputs)) {
      const float* from[ROWS] = {};
      float* to[ROWS] = {};
      const int count = rows_of(t, positions);
      Position p(height, width, t * ROWS);
      for (int m = 0; m < count; ++m, p.next()) {
        const Index y = p.y * l.stride + ky.first - padding, x = p.x * l.stride + kx.first - padding;
        from[m] = at(l.x, l.height, l.width, l.inputs, p.image, y, x);
        to[m] = l.convolved + (t * ROWS + m) * l.outputs + output;
      }
      sum(count, from, weight + output, walk, to, output, l.outputs, false);
    }
}

// weight_gradient[ky, kx, input, output] = Σ x[image, stride y + ky - padding, …, input] gradient[image, y, x, output]
static void weight_gradient(const Layer& l) {
  const Index height = l.out_height(), width = l.out_width(), padding = l.kernel / 2;
  const Index x_width = l.width + 2 * l.x.border, g_width = width + 2 * l.convolved_gradient.border;
  const Index x_height = l.height + 2 * l.x.border, g_height = height + 2 * l.convolved_gradient.border;
  const Taps ky(l.kernel, l.height, height, l.stride, 0, 1), kx(l.kernel, l.width, width, l.stride, 0, 1);
  const Walk walk = {
      {l.images, height, width},
      {x_height * x_width * l.inputs, l.stride * x_width * l.inputs, l.stride * l.inputs},
      {g_height * g_width * l.outputs, g_width * l.outputs, l.outputs}};
  const float* gradient = at(l.convolved_gradient, height, width, l.outputs, 0, 0, 0);
#pragma omp for collapse(4) schedule(static) nowait
  for (Index output = 0; output < l.outputs; output += panel(l.outputs))
    for (Index t = 0; t < tiles(l.inputs); ++t)
      for (Index y = 0; y < ky.count; ++y)
        for (Index x = 0; x < kx.count; ++x) {
          const float* from[ROWS] = {};
          float* to[ROWS] = {};
          const int count = rows_of(t, l.inputs);
          const Index row = ky.first + y, column = kx.first + x;
          for (int m = 0; m < count; ++m) {
            const Index input = t * ROWS + m;
            from[m] = at(l.x, l.height, l.width, l.inputs, 0, row - padding, column - padding) + input;
            to[m] = l.weight_gradient + ((row * l.kernel + column) * l.inputs + input) * l.outputs + output;
          }
          sum(count, from, gradient + output, walk, to, output, l.outputs, false);
        }
}

// The input positions whose coordinates have the same remainder by the stride meet the same rows and columns of the
// kernel, every `stride`-th. Those are the classes of which the next two functions speak.

// transposed[class][ky, kx, output, input]: for each class its part of the weight, turned around
static void transpose_weight(const Layer& l) {
  constexpr Index BLOCK = 16;  // rows and columns that the first-level cache holds
  float* to = l.transposed;
  for (Index ry = 0; ry < l.stride; ++ry)
    for (Index rx = 0; rx < l.stride; ++rx) {
      const Taps ky(l.kernel, l.height, l.out_height(), l.stride, ry, l.stride);
      const Taps kx(l.kernel, l.width, l.out_width(), l.stride, rx, l.stride);
#pragma omp for collapse(3) schedule(static) nowait
      for (Index y = 0; y < ky.count; ++y)
        for (Index x = 0; x < kx.count; ++x)
          for (Index block = 0; block < l.outputs; block += BLOCK) {
            const Index row = ky.first + l.stride * (ky.count - 1 - y), column = kx.first + l.stride * (kx.count - 1 - x);
            const float* weight = l.weight + (row * l.kernel + column) * l.inputs * l.outputs;
            float* turned = to + (y * kx.count + x) * l.inputs * l.outputs;
            const Index end = block + BLOCK < l.outputs ? block + BLOCK : l.outputs;
            for (Index input = 0; input < l.inputs; ++input)
              for (Index output = block; output < end; ++output)
                turned[output * l.inputs + input] = weight[input * l.outputs + output];
          }
      to += ky.count * kx.count * l.inputs * l.outputs;
    }
}

// x_gradient[image, stride y + ky - padding, …, input] = Σ gradient[image, y, x, output] weight[ky, kx, input, output]
static void input_gradient(const Layer& l) {
  const Index padding = l.kernel / 2;
  const float* weight = l.transposed;
  for (Index ry = 0; ry < l.stride; ++ry)
    for (Index rx = 0; rx < l.stride; ++rx) {
      const Taps ky(l.kernel, l.height, l.out_height(), l.stride, ry, l.stride);
      const Taps kx(l.kernel, l.width, l.out_width(), l.stride, rx, l.stride);
      // the first input row and column of the class, and how many it has
      const Index y0 = ((ry - padding) % l.stride + l.stride) % l.stride, height = (l.height - y0 + l.stride - 1) / l.stride;
      const Index x0 = ((rx - padding) % l.stride + l.stride) % l.stride, width = (l.width - x0 + l.stride - 1) / l.stride;
      const Index positions = l.images * height * width, terms = ky.count * kx.count * l.outputs;
      const Walk walk = {
          {1, ky.count, kx.count * l.outputs},
          {0, (l.out_width() + 2 * l.convolved_gradient.border) * l.outputs, 1},
          {0, kx.count * l.outputs * l.inputs, l.inputs}};
#pragma omp for collapse(2) schedule(static) nowait
      for (Index t = 0; t < tiles(positions); ++t)
        for (Index input = 0; input < l.inputs; input += panel(l.inputs)) {
          if (terms == 0 && l.add_to_x_gradient) continue;
          const float* from[ROWS] = {};
          float* to[ROWS] = {};
          const int count = rows_of(t, positions);
          Position p(height, width, t * ROWS);
          for (int m = 0; m < count; ++m, p.next()) {
            const Index y = y0 + l.stride * p.y, x = x0 + l.stride * p.x;
            const Index out_y = (y + padding - ky.first) / l.stride - (ky.count - 1);
            const Index out_x = (x + padding - kx.first) / l.stride - (kx.count - 1);
            from[m] = at(l.convolved_gradient, l.out_height(), l.out_width(), l.outputs, p.image, out_y, out_x);
            to[m] = l.x_gradient + ((p.image * l.height + y) * l.width + x) * l.inputs + input;
          }
          sum(count, from, weight + input, walk, to, input, l.inputs, l.add_to_x_gradient);
        }
      weight += terms * l.inputs;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// 3×3 kernels with stride 1, by Winograd's F(2×2, 3×3): 16 multiplications for four outputs instead of 36
//
// A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks (2016), whose letters these are: the four
// outputs of a channel are Aᵀ [ Σ (G g Gᵀ) ⊙ (Bᵀ d B) ] A, where d are 4×4 pixels, g is the kernel, and the sum is over
// the input channels. So each of the 16 elements of a transformed tile, here called frequencies, has a matrix product of
// its own, of pixels by kernels.

// The pixels or frequencies of a tile: 4×4 vectors of channels, or 2×2, or 3×3 of a kernel.
template <int SIZE>
using Square = Vector[SIZE][SIZE];

// to[i][j] = from[i][j] transformed along i, for the columns j; then along j. `along` maps SIZE vectors to TO vectors.
template <int SIZE, int TO, typename Along>
static inline void transform(const Square<SIZE>& from, Square<TO>& to, Along along) {
  Vector half[TO][SIZE];
  for (int j = 0; j < SIZE; ++j) {
    Vector column[SIZE], turned[TO];
    for (int i = 0; i < SIZE; ++i) column[i] = from[i][j];
    along(column, turned);
    for (int i = 0; i < TO; ++i) half[i][j] = turned[i];
  }
  for (int i = 0; i < TO; ++i) along(half[i], to[i]);
}

// Bᵀ
static inline void of_pixels(const Vector* d, Vector* to) {
  to[0] = d[0] - d[2];
  to[1] = d[1] + d[2];
  to[2] = d[2] - d[1];
  to[3] = d[1] - d[3];
}

// G and its transpose
static inline void of_kernel(const Vector* g, Vector* to) {
  const Vector ends = (g[0] + g[2]) * 0.5f, middle = g[1] * 0.5f;
  to[0] = g[0];
  to[1] = ends + middle;
  to[2] = ends - middle;
  to[3] = g[2];
}

static inline void to_kernel(const Vector* u, Vector* to) {
  const Vector both = (u[1] + u[2]) * 0.5f;
  to[0] = u[0] + both;
  to[1] = (u[1] - u[2]) * 0.5f;
  to[2] = both + u[3];
}

// Aᵀ and its transpose
static inline void to_outputs(const Vector* m, Vector* to) {
  to[0] = m[0] + m[1] + m[2];
  to[1] = m[1] - m[2] - m[3];
}

static inline void of_outputs(const Vector* y, Vector* to) {
  to[0] = y[0];
  to[1] = y[0] + y[1];
  to[2] = y[0] - y[1];
  to[3] = -y[1];
}

constexpr Index FREQUENCIES = 16;
constexpr Index CHUNK = 64;  // tiles whose frequencies stay in the second-level cache

// Where a tile of a map begins; tiles are numbered over images, rows and columns.
struct TilePlace {
  Index image, y, x;
  TilePlace(Index height, Index width, Index number)
      : image(number / (height / 2 * (width / 2))),
        y(number / (width / 2) % (height / 2) * 2),
        x(number % (width / 2) * 2) {}
};

// The tiles of a map that fall to this thread. They lie in the same rows, or nearly so, as what falls to it elsewhere.
struct Share {
  Index begin, end;
  explicit Share(Index all) {
    const Index blocks = tiles(all), threads = omp_get_num_threads(), thread = omp_get_thread_num();
    begin = blocks * thread / threads * ROWS;
    end = blocks * (thread + 1) / threads * ROWS;
    if (end > all) end = all;
  }
};

// Memory of this thread, for as long as a function needs it; it begins with a cache line.
static float* workspace(Index floats) {
  thread_local std::vector<float> memory;
  if (Index(memory.size()) < floats + 16) memory.resize(floats + 16);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  return memory.data() + (64 - address % 64) % 64 / sizeof(float);
}

// The kernels between a pair of channels, [ky, kx][inputs][outputs], for a convolution that reads them as they are or,
// for the gradient of its input, turned by 180° and with inputs and outputs exchanged.
struct Kernels {
  const float* values;
  Index inputs, outputs;
  bool turned;
};

// to[input][lane] = the kernels (i, j) from the channels input, input + 1, … to output + lane
static inline void load_kernels(const Kernels& k, int i, int j, Index input, Index output, Vector* to) {
  if (!k.turned) {
    const float* from = k.values + ((i * 3 + j) * k.inputs + input) * k.outputs + output;
    for (Index n = 0; n < LANES && input + n < k.inputs; ++n) to[n] = load(from + n * k.outputs, k.outputs - output);
    return;
  }
  const float* from = k.values + ((8 - i * 3 - j) * k.outputs + output) * k.inputs + input;
  for (Index n = 0; n < LANES; ++n)
    to[n] = output + n < k.outputs ? load(from + n * k.inputs, k.inputs - input) : Vector{};
  transpose(to);
}

// to[frequency][input][lane], the lanes of `wide` outputs from `output` on
static void transform_kernels(const Kernels& k, Index output, Index wide, float* to) {
  for (Index input = 0; input < k.inputs; input += LANES)
    for (Index lane = 0; lane < wide; lane += LANES) {
      Vector kernels[9][LANES];
      for (int tap = 0; tap < 9; ++tap) load_kernels(k, tap / 3, tap % 3, input, output + lane, kernels[tap]);
      for (Index n = 0; n < LANES && input + n < k.inputs; ++n) {
        Square<3> g;
        Square<4> u;
        for (int tap = 0; tap < 9; ++tap) g[tap / 3][tap % 3] = kernels[tap][n];
        transform(g, u, of_kernel);
        for (int f = 0; f < FREQUENCIES; ++f)
          *(Vector*)(to + (f * k.inputs + input + n) * wide + lane) = u[f / 4][f % 4];
      }
    }
}

// to[frequency][channel] of the pixels in a tile and around it, the frequencies at a distance
static void transform_pixels(
    const Map& map, Index height, Index width, Index channels, Index number, float* to, Index distance) {
  const TilePlace tile(height, width, number);
  const Index row = (width + 2 * map.border) * channels;
  const float* pixels = at(map, height, width, channels, tile.image, tile.y - 1, tile.x - 1);
  for (Index channel = 0; channel < channels; channel += LANES) {
    const Index count = channels - channel;
    Square<4> d, v;
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) d[i][j] = load(pixels + i * row + j * channels + channel, count);
    transform(d, v, of_pixels);
    for (int f = 0; f < FREQUENCIES; ++f) store(to + f * distance + channel, v[f / 4][f % 4], count);
  }
}

// the same of the gradients of a tile's four outputs
static void transform_gradients(
    const Map& map, Index height, Index width, Index channels, Index number, float* to, Index distance) {
  const TilePlace tile(height, width, number);
  const Index row = (width + 2 * map.border) * channels;
  const float* gradients = at(map, height, width, channels, tile.image, tile.y, tile.x);
  for (Index channel = 0; channel < channels; channel += LANES) {
    const Index count = channels - channel;
    Square<2> y;
    Square<4> m;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) y[i][j] = load(gradients + i * row + j * channels + channel, count);
    transform(y, m, of_outputs);
    for (int f = 0; f < FREQUENCIES; ++f) store(to + f * distance + channel, m[f / 4][f % 4], count);
  }
}

// out = x * kernels, or the gradient of the input likewise; [images, height, width, channels], each thread some tiles.
//
// Every thread transforms the kernels for itself: that takes less time than to fetch them from another core.
static void convolve_3x3(
    const Map& x, Index images, Index height, Index width, const Kernels& kernels, float* out, bool add) {
  const Index inputs = kernels.inputs, outputs = kernels.outputs, wide = panel(outputs);
  const Share share(images * (height / 2) * (width / 2));
  float* pixels = workspace(FREQUENCIES * (CHUNK * inputs + (inputs + ROWS) * wide));
  float* transformed = pixels + FREQUENCIES * CHUNK * inputs;
  float* products = transformed + FREQUENCIES * inputs * wide;
  const Walk walk = {{1, 1, inputs}, {0, 0, 1}, {0, 0, wide}};
  for (Index first = share.begin; first < share.end; first += CHUNK) {
    const Index chunk = share.end - first < CHUNK ? share.end - first : CHUNK;
    for (Index t = 0; t < chunk; ++t)
      transform_pixels(x, height, width, inputs, first + t, pixels + t * inputs, CHUNK * inputs);
    for (Index output = 0; output < outputs; output += wide) {
      transform_kernels(kernels, output, wide, transformed);
      for (Index block = 0; block < chunk; block += ROWS) {
        const int count = chunk - block < ROWS ? int(chunk - block) : ROWS;
        for (Index f = 0; f < FREQUENCIES; ++f) {
          const float* from[ROWS] = {};
          float* to[ROWS] = {};
          for (int m = 0; m < count; ++m) {
            from[m] = pixels + (f * CHUNK + block + m) * inputs;
            to[m] = products + (f * ROWS + m) * wide;
          }
          sum(count, from, transformed + f * inputs * wide, walk, to, 0, wide, false);
        }
        for (int m = 0; m < count; ++m) {
          const TilePlace tile(height, width, first + block + m);
          for (Index lane = 0; lane < wide; lane += LANES) {
            const Index left = outputs - output - lane;
            Square<4> product;
            Square<2> y;
            for (int f = 0; f < FREQUENCIES; ++f)
              product[f / 4][f % 4] = *(const Vector*)(products + (f * ROWS + m) * wide + lane);
            transform(product, y, to_outputs);
            for (int i = 0; i < 2; ++i)
              for (int j = 0; j < 2; ++j) {
                float* to = out + ((tile.image * height + tile.y + i) * width + tile.x + j) * outputs + output + lane;
                store(to, add ? load(to, left) + y[i][j] : y[i][j], left);
              }
          }
        }
      }
    }
  }
}

// weight_gradient = Gᵀ [ Σ (Bᵀ d B) ⊙ (A e Aᵀ) ] G, the sum over all tiles, where e are the gradients of four outputs.
//
// Each thread sums over its tiles, and what the threads have is added up, so only that goes from one core to another.
static void weight_gradient_3x3(const Layer& l) {
  const Index wide = panel(l.outputs), size = 9 * l.inputs * l.outputs;
  const Share share(l.images * (l.height / 2) * (l.width / 2));
  float* partial = l.partial_gradients + omp_get_thread_num() * size;
  float* pixels = workspace(FREQUENCIES * (CHUNK * (l.inputs + l.outputs) + ROWS * wide));
  float* gradients = pixels + FREQUENCIES * CHUNK * l.inputs;
  float* products = gradients + FREQUENCIES * CHUNK * l.outputs;
  if (share.begin >= share.end)
    for (Index i = 0; i < size; ++i) partial[i] = 0;
  for (Index first = share.begin; first < share.end; first += CHUNK) {
    const Index chunk = share.end - first < CHUNK ? share.end - first : CHUNK;
    const bool add = first > share.begin;
    for (Index t = 0; t < chunk; ++t) {
      transform_pixels(l.x, l.height, l.width, l.inputs, first + t, pixels + t * l.inputs, CHUNK * l.inputs);
      transform_gradients(
          l.convolved_gradient, l.height, l.width, l.outputs, first + t, gradients + t * l.outputs, CHUNK * l.outputs);
    }
    const Walk walk = {{1, 1, chunk}, {0, 0, l.inputs}, {0, 0, l.outputs}};
    for (Index output = 0; output < l.outputs; output += wide)
      for (Index input = 0; input < l.inputs; input += ROWS) {
        const int count = l.inputs - input < ROWS ? int(l.inputs - input) : ROWS;
        for (Index f = 0; f < FREQUENCIES; ++f) {
          const float* from[ROWS] = {};
          float* to[ROWS] = {};
          for (int m = 0; m < count; ++m) {
            from[m] = pixels + f * CHUNK * l.inputs + input + m;
            to[m] = products + (f * ROWS + m) * wide;
          }
          sum(count, from, gradients + f * CHUNK * l.outputs + output, walk, to, output, l.outputs, false);
        }
        for (int m = 0; m < count; ++m)
          for (Index lane = 0; lane < wide; lane += LANES) {
            const Index left = l.outputs - output - lane;
            Square<4> u;
            Square<3> g;
            for (int f = 0; f < FREQUENCIES; ++f) u[f / 4][f % 4] = load(products + (f * ROWS + m) * wide + lane, left);
            transform(u, g, to_kernel);
            for (int tap = 0; tap < 9; ++tap) {
              float* to = partial + (tap * l.inputs + input + m) * l.outputs + output + lane;
              const Vector v = g[tap / 3][tap % 3];
              store(to, add ? load(to, left) + v : v, left);
            }
          }
      }
  }
#pragma omp barrier
#pragma omp for schedule(static) nowait
  for (Index i = 0; i < size; i += LANES) {
    Vector total = {};
    for (int thread = 0; thread < omp_get_num_threads(); ++thread)
      total += load(l.partial_gradients + thread * size + i, size - i);
    store(l.weight_gradient + i, total, size - i);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Batch norm, with what is added to it and the ReLU behind it

// Both directions first sum over each row of the map, then over the rows, so that threads that share the rows get the
// same numbers however many they are; and sums of sums lose less to rounding.

// the mean of each row of `convolved`, and the sum of its squared deviations from it
static void row_statistics(const Layer& l) {
  const Index width = l.out_width(), rows = l.images * l.out_height();
  float *means = l.sums, *deviations = l.sums + rows * l.outputs;
#pragma omp for schedule(static)
  for (Index row = 0; row < rows; ++row)
    for (Index channel = 0; channel < l.outputs; channel += LANES) {
      const Index count = l.outputs - channel;
      const float* from = l.convolved + row * width * l.outputs + channel;
      Vector total = {}, squares = {};
      for (Index x = 0; x < width; ++x) total += load(from + x * l.outputs, count);
      const Vector mean = total / float(width);
      for (Index x = 0; x < width; ++x) {
        const Vector d = load(from + x * l.outputs, count) - mean;
        squares += d * d;
      }
      store(means + row * l.outputs + channel, mean, count);
      store(deviations + row * l.outputs + channel, squares, count);
    }
}

// mean and rstd = 1 / √(variance + eps) of the batch; and the running statistics
static void batch_statistics(const Layer& l) {
  const Index width = l.out_width(), rows = l.images * l.out_height();
  const float n = float(l.out_positions());
  const float *means = l.sums, *deviations = l.sums + rows * l.outputs;
  row_statistics(l);
#pragma omp for schedule(static)
  for (Index channel = 0; channel < l.outputs; channel += LANES) {
    const Index count = l.outputs - channel;
    Vector mean = {}, squares = {}, between = {};
    for (Index row = 0; row < rows; ++row) mean += load(means + row * l.outputs + channel, count);
    mean /= float(rows);
    for (Index row = 0; row < rows; ++row) {
      const Vector d = load(means + row * l.outputs + channel, count) - mean;
      between += d * d;
      squares += load(deviations + row * l.outputs + channel, count);
    }
    squares += between * float(width);
    Vector rstd;
    for (int lane = 0; lane < LANES; ++lane) rstd[lane] = 1 / std::sqrt(squares[lane] / n + l.eps);
    store(l.mean + channel, mean, count);
    store(l.rstd + channel, rstd, count);
    float *running_mean = l.running_mean + channel, *running_var = l.running_var + channel;
    const float keep = 1 - l.momentum;
    store(running_mean, load(running_mean, count) * keep + mean * l.momentum, count);
    store(running_var, load(running_var, count) * keep + squares / (n - 1) * l.momentum, count);
  }
#pragma omp single nowait
  ++*l.batches_tracked;
}

// the same from the running statistics, which stay as they are
static void running_statistics(const Layer& l) {
#pragma omp for schedule(static)
  for (Index channel = 0; channel < l.outputs; ++channel) {
    l.mean[channel] = l.running_mean[channel];
    l.rstd[channel] = 1 / std::sqrt(l.running_var[channel] + l.eps);
  }
  if (l.channel_weights) row_statistics(l);
}

// channel_means[image, channel], of the batch norm's output, from the means of the rows
static void means_of_maps(const Layer& l) {
  const Index height = l.out_height();
#pragma omp for collapse(2) schedule(static) nowait
  for (Index image = 0; image < l.images; ++image)
    for (Index channel = 0; channel < l.outputs; channel += LANES) {
      const Index count = l.outputs - channel, here = image * l.outputs + channel;
      Vector mean = {};
      for (Index y = 0; y < height; ++y) mean += load(l.sums + (image * height + y) * l.outputs + channel, count);
      const Vector deviation = mean / float(height) - load(l.mean + channel, count);
      const Vector factor = load(l.scale + channel, count) * load(l.rstd + channel, count);
      store(l.deviations + here, deviation, count);
      store(l.channel_means + here, deviation * factor + load(l.shift + channel, count), count);
    }
}

// out = scale · (convolved - mean) · rstd + shift, times the channel's weight, + added, behind a ReLU
static void normalize(const Layer& l) {
  const Index height = l.out_height(), width = l.out_width(), rows = l.images * height;
#pragma omp for schedule(static) nowait
  for (Index row = 0; row < rows; ++row) {
    const Index image = row / height, y = row % height;
    float* out = at(l.out, height, width, l.outputs, image, y, 0);
    const float* added = l.added.values ? at(l.added, height, width, l.outputs, image, y, 0) : nullptr;
    for (Index channel = 0; channel < l.outputs; channel += LANES) {
      const Index count = l.outputs - channel;
      const Vector mean = load(l.mean + channel, count), shift = load(l.shift + channel, count);
      const Vector factor = load(l.scale + channel, count) * load(l.rstd + channel, count);
      const float* weights = l.channel_weights ? l.channel_weights + image * l.outputs + channel : nullptr;
      const Vector weight = weights ? load(weights, count) : Vector{};
      for (Index x = 0; x < width; ++x) {
        const Index here = x * l.outputs + channel;
        Vector v = (load(l.convolved + row * width * l.outputs + here, count) - mean) * factor + shift;
        if (weights) v *= weight;
        if (added) v += load(added + here, count);
        store(out + here, l.relu ? relu(v) : v, count);
      }
    }
  }
}

// Sets the gradient of `out` to 0 where the ReLU was off. Stores in `sums`, for each row, the sum of that gradient and
// the sum of its products with the deviations from the mean.
static void mask_gradient(const Layer& l) {
  const Index height = l.out_height(), width = l.out_width(), rows = l.images * height;
  float *of_shift = l.sums, *of_scale = l.sums + rows * l.outputs;
#pragma omp for schedule(static)
  for (Index row = 0; row < rows; ++row) {
    const float* out = at(l.out, height, width, l.outputs, row / height, row % height, 0);
    for (Index channel = 0; channel < l.outputs; channel += LANES) {
      const Index count = l.outputs - channel;
      const Vector mean = load(l.mean + channel, count);
      Vector sum = {}, product = {};
      for (Index x = 0; x < width; ++x) {
        const Index here = (row * width + x) * l.outputs + channel;
        Vector g = load(l.gradient + here, count);
        if (l.relu) {
          g = where_positive(g, load(out + x * l.outputs + channel, count));
          store(l.gradient + here, g, count);
        }
        sum += g;
        product += g * (load(l.convolved + here, count) - mean);
      }
      store(of_shift + row * l.outputs + channel, sum, count);
      store(of_scale + row * l.outputs + channel, product, count);
    }
  }
}

// The sums over an image's rows of what `mask_gradient` has left.
struct OfImage {
  Vector shift = {}, scale = {};
  OfImage(const Layer& l, Index image, Index channel) {
    const Index height = l.out_height(), rows = l.images * height, count = l.outputs - channel;
    for (Index row = image * height; row < (image + 1) * height; ++row) {
      shift += load(l.sums + row * l.outputs + channel, count);
      scale += load(l.sums + (rows + row) * l.outputs + channel, count);
    }
  }
};

static void channel_weights_gradient(const Layer& l) {
#pragma omp for collapse(2) schedule(static) nowait
  for (Index image = 0; image < l.images; ++image)
    for (Index channel = 0; channel < l.outputs; channel += LANES) {
      const Index count = l.outputs - channel;
      const OfImage sums(l, image, channel);
      const Vector factor = load(l.scale + channel, count) * load(l.rstd + channel, count);
      const Vector gradient = sums.scale * factor + sums.shift * load(l.shift + channel, count);
      store(l.channel_weights_gradient + image * l.outputs + channel, gradient, count);
    }
}

// From the gradient of `out`, masked, those of scale, shift and `convolved`.
//
// With channel weights, that of the batch norm's output is gradient · weight + (that of its mean) / positions.
static void normalize_backward(const Layer& l) {
  const Index height = l.out_height(), width = l.out_width(), rows = l.images * height;
  const float n = float(l.out_positions()), of_map = float(height * width);
#pragma omp for schedule(static)
  for (Index channel = 0; channel < l.outputs; channel += LANES) {
    const Index count = l.outputs - channel;
    Vector sum = {}, product = {};
    if (l.channel_weights)
      for (Index image = 0; image < l.images; ++image) {
        const OfImage sums(l, image, channel);
        const Index here = image * l.outputs + channel;
        const Vector weight = load(l.channel_weights + here, count), of_mean = load(l.channel_means_gradient + here, count);
        sum += sums.shift * weight + of_mean;
        product += sums.scale * weight + of_mean * load(l.deviations + here, count);
      }
    else
      for (Index row = 0; row < rows; ++row) {
        sum += load(l.sums + row * l.outputs + channel, count);
        product += load(l.sums + (rows + row) * l.outputs + channel, count);
      }
    store(l.shift_gradient + channel, sum, count);
    store(l.scale_gradient + channel, product * load(l.rstd + channel, count), count);
  }
#pragma omp for schedule(static)
  for (Index row = 0; row < rows; ++row) {
    const Index image = row / height;
    float* to = at(l.convolved_gradient, height, width, l.outputs, image, row % height, 0);
    for (Index channel = 0; channel < l.outputs; channel += LANES) {
      const Index count = l.outputs - channel;
      const Vector mean = load(l.mean + channel, count), rstd = load(l.rstd + channel, count);
      const Vector factor = load(l.scale + channel, count) * rstd;
      const Vector slope = load(l.scale_gradient + channel, count) * rstd / n;
      Vector offset = load(l.shift_gradient + channel, count) / n, weight = {};
      if (l.channel_weights) {
        weight = load(l.channel_weights + image * l.outputs + channel, count);
        offset -= load(l.channel_means_gradient + image * l.outputs + channel, count) / of_map;
      }
      for (Index x = 0; x < width; ++x) {
        const Index here = (row * width + x) * l.outputs + channel;
        const Vector d = load(l.convolved + here, count) - mean;
        Vector g = load(l.gradient + here, count);
        if (l.channel_weights) g *= weight;
        store(to + x * l.outputs + channel, (g - offset - d * slope) * factor, count);
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// What Python calls

// `forward` in training mode, `evaluate` in evaluation mode. With channel weights both end where the means of the maps
// are known, from which Python computes the weights; `weigh` then does the rest.
template <typename Statistics>
static inline void run(const Layer& l, Statistics statistics) {
#pragma omp parallel num_threads(l.threads)
  {
    if (l.winograd)
      convolve_3x3(l.x, l.images, l.height, l.width, {l.weight, l.inputs, l.outputs, false}, l.convolved, false);
    else
      convolve(l);
#pragma omp barrier
    statistics(l);
    if (l.channel_weights)
      means_of_maps(l);
    else
      normalize(l);
  }
}

extern "C" void forward(const Layer* layer) { run(*layer, batch_statistics); }

extern "C" void evaluate(const Layer* layer) { run(*layer, running_statistics); }

extern "C" void weigh(const Layer* layer) {
#pragma omp parallel num_threads(layer->threads)
  normalize(*layer);
}

// The gradient of the channel weights, from which Python computes that of the means of the maps; `backward` comes next.
extern "C" void weigh_backward(const Layer* layer) {
#pragma omp parallel num_threads(layer->threads)
  {
    mask_gradient(*layer);
    channel_weights_gradient(*layer);
  }
}

extern "C" void backward(const Layer* layer) {
  const Layer& l = *layer;
#pragma omp parallel num_threads(l.threads)
  {
    if (l.x_gradient && !l.winograd) transpose_weight(l);
    if (!l.channel_weights) mask_gradient(l);
    normalize_backward(l);  // at its end all threads have done all of this
    if (l.winograd) {
      weight_gradient_3x3(l);
      if (l.x_gradient)
        convolve_3x3(
            l.convolved_gradient, l.images, l.height, l.width, {l.weight, l.outputs, l.inputs, true}, l.x_gradient,
            l.add_to_x_gradient);
    } else {
      weight_gradient(l);
      if (l.x_gradient) input_gradient(l);
    }
  }
}
