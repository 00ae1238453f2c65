// Calls a feature server as a client of Go would, and prints what it saw as one JSON object.
// client CONFIG.json runs the cases that tests/interop/cases.py expects; client CONFIG.json drain says "ready" once it is
// answered, reads on until the server is gone, and prints how its calls ended.
package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	codenames "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	limit   = 20 * time.Second
	readers = 8
	online  = "/headrace.feature.v1.OnlineFeatureService/"
)

type client struct {
	Address, Authority, Descriptors string
	Reader, Writer, Service, View   string
	NowS                            int64 `json:"now_s"`

	contract *contract
	line     *grpc.ClientConn
}

func main() {
	c := &client{}
	text, err := os.ReadFile(os.Args[1])
	must(err)
	must(json.Unmarshal(text, c))
	c.contract, err = readContract(c.Descriptors)
	must(err)
	secured := insecure.NewCredentials()
	if c.Authority != "" {
		secured, err = credentials.NewClientTLSFromFile(c.Authority, "")
		must(err)
	}
	c.line, err = grpc.NewClient(c.Address, grpc.WithTransportCredentials(secured))
	must(err)
	var seen any
	if len(os.Args) > 2 {
		seen = c.drain()
	} else {
		seen = c.seen()
	}
	must(json.NewEncoder(os.Stdout).Encode(seen))
}

func (c *client) seen() map[string]any {
	cases := map[string]func() any{
		"prepare": c.prepare, "read": c.read, "read_by_handle": c.readByHandle, "large": c.large, "errors": c.errors,
		"unimplemented": c.unimplemented, "tokens": c.tokens, "deadline": c.deadline, "gzip": c.gzip,
		"cancel": c.cancel, "concurrent": c.concurrent, "ingest": c.ingest, "health": c.health,
	}
	out := map[string]any{}
	for name, run := range cases {
		out[name] = caught(run)
	}
	return out
}

func caught(run func() any) (out any) {
	defer func() {
		if thrown := recover(); thrown != nil {
			out = map[string]string{"thrown": fmt.Sprint(thrown)}
		}
	}()
	return run()
}

// Eight readers at a time, each until a call of its own fails.
func (c *client) drain() map[string]int {
	var lock sync.Mutex
	var group sync.WaitGroup
	ends := map[string]int{}
	c.isAlive()
	fmt.Println("ready")
	for range readers {
		group.Go(func() {
			for code := "OK"; code == "OK"; {
				_, err := c.answer(c.selection(1))
				code = codeOf(err)
				lock.Lock()
				ends[code]++
				lock.Unlock()
			}
		})
	}
	group.Wait()
	return ends
}

// ---- cases ----

func (c *client) prepare() any {
	found := c.prepared()
	return map[string]any{
		"handle_bytes":    len(get(found, "handle").Bytes()),
		"columns":         texts(found, "columns", "name"),
		"join_keys":       texts(found, "join_keys", "name"),
		"feature_service": get(found, "feature_service").String(),
	}
}

func (c *client) read() any { return summary(c.mustAnswer(c.selection(1, 2, 100_000))) }

func (c *client) readByHandle() any {
	asked := c.selection(1, 2, 100_000)
	delete(asked, "feature_service")
	asked["handle"] = base64.StdEncoding.EncodeToString(get(c.prepared(), "handle").Bytes())
	asked["options"] = fields{"include_names": true}
	return summary(c.mustAnswer(asked))
}

func (c *client) large() any {
	keys := make([]int64, 10_000)
	for at := range keys {
		keys[at] = int64(at % 200)
	}
	answer, sum := c.mustAnswer(c.selection(keys...)), int64(0)
	for _, age := range ages(answer) {
		sum += int64(age)
	}
	return map[string]any{"rows": get(answer, "row_count").Int(), "age_sum": sum}
}

func (c *client) errors() any {
	nobody := c.selection(1)
	nobody["feature_service"] = "shop.web.none"
	_, empty := c.answer(fields{})
	_, unknown := c.answer(nobody)
	_, forwarded := c.call("PrepareFeatureSet", fields{"feature_service": "shop.web.none"}, c.Reader)
	return []any{failure(empty), failure(unknown), failure(forwarded)}
}

func (c *client) unimplemented() any {
	ctx, cancel := within(limit, c.Reader)
	defer cancel()
	return codeOf(c.line.Invoke(ctx, online+"Nothing", &emptypb.Empty{}, &emptypb.Empty{}))
}

func (c *client) tokens() any {
	out := []any{}
	for _, token := range []string{"", "stranger", c.Writer} {
		_, err := c.call("GetOnlineFeatures", c.selection(1), token)
		out = append(out, failure(err))
	}
	_, err := c.call("WriteFeatures", c.write(1, 1), c.Reader)
	return append(out, failure(err))
}

func (c *client) deadline() any {
	counts, held := c.stream([]fields{c.write(500, 41)}, 500*time.Millisecond, false)
	ctx, cancel := within(-time.Millisecond, c.Reader)
	defer cancel()
	_, passed := c.invoke(ctx, "GetOnlineFeatures", c.selection(1))
	return map[string]any{"held": codeOf(held), "counts": counts, "passed": codeOf(passed), "alive": c.isAlive()}
}

func (c *client) gzip() any {
	keys := make([]int64, 200)
	for at := range keys {
		keys[at] = int64(at)
	}
	ctx, cancel := within(limit, c.Reader)
	defer cancel()
	answer, err := c.invoke(ctx, "GetOnlineFeatures", c.selection(keys...), grpc.UseCompressor(gzip.Name))
	must(err)
	return get(answer, "row_count").Int()
}

func (c *client) cancel() any {
	codes := c.together(50, func(int64) string {
		ctx, cancel := within(limit, c.Reader)
		go cancel()
		for {
			if _, err := c.invoke(ctx, "GetOnlineFeatures", c.selection(1)); err != nil {
				return codeOf(err)
			} // it was answered before it was cancelled
		}
	})
	slices.Sort(codes)
	return map[string]any{"codes": slices.Compact(codes), "alive": c.isAlive()}
}

func (c *client) concurrent() any {
	right := 0
	for number, name := range c.together(100, func(key int64) string { return names(c.mustAnswer(c.selection(key)))[0] }) {
		if name == fmt.Sprintf("user %d", number) {
			right++
		}
	}
	return right
}

func (c *client) ingest() any {
	counts, err := c.stream([]fields{c.write(501, 42), c.write(502, 43), c.write(503, 44)}, limit, true)
	return map[string]any{"counts": counts, "code": codeOf(err), "ages": ages(c.mustAnswer(c.selection(501, 502, 503)))}
}

func (c *client) health() any {
	ctx, cancel := within(limit, "")
	defer cancel()
	health := grpc_health_v1.NewHealthClient(c.line)
	known, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	must(err)
	_, unknown := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
	return []string{known.Status.String(), codeOf(unknown)}
}

// ---- calls ----

func (c *client) isAlive() bool { return get(c.mustAnswer(c.selection(1)), "row_count").Int() == 1 }

func (c *client) prepared() protoreflect.Message {
	found, err := c.call("PrepareFeatureSet", fields{"feature_service": c.Service}, c.Reader)
	must(err)
	return found
}

func (c *client) mustAnswer(asked fields) protoreflect.Message {
	found, err := c.answer(asked)
	must(err)
	return found
}

func (c *client) answer(asked fields) (protoreflect.Message, error) {
	return c.call("GetOnlineFeatures", asked, c.Reader)
}

func (c *client) call(method string, asked fields, token string) (protoreflect.Message, error) {
	ctx, cancel := within(limit, token)
	defer cancel()
	return c.invoke(ctx, method, asked)
}

func (c *client) invoke(
	ctx context.Context, method string, asked fields, options ...grpc.CallOption,
) (protoreflect.Message, error) {
	answer := c.contract.message(method+"Response", fields{})
	err := c.line.Invoke(ctx, online+method, c.contract.message(method+"Request", asked), answer, options...)
	return answer, err
}

// The counts of a stream of writes, and what it ended in.
func (c *client) stream(writes []fields, left time.Duration, endsItself bool) ([]int64, error) {
	ctx, cancel := within(left, c.Writer)
	defer cancel()
	kind := &grpc.StreamDesc{StreamName: "IngestFeatures", ClientStreams: true, ServerStreams: true}
	stream, err := c.line.NewStream(ctx, kind, online+"IngestFeatures")
	must(err)
	for _, write := range writes {
		must(stream.SendMsg(c.contract.message("IngestFeaturesRequest", fields{"write": write})))
	}
	if endsItself {
		must(stream.CloseSend())
	}
	counts := []int64{}
	for {
		answer := c.contract.message("IngestFeaturesResponse", fields{})
		if err := stream.RecvMsg(answer); err == io.EOF {
			return counts, nil
		} else if err != nil {
			return counts, err
		}
		counts = append(counts, get(get(answer, "write").Message(), "row_count").Int())
	}
}

func (c *client) together(count int, run func(int64) string) []string {
	var group sync.WaitGroup
	out := make([]string, count)
	for at := range out {
		group.Go(func() { out[at] = run(int64(at)) })
	}
	group.Wait()
	return out
}

func within(left time.Duration, token string) (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return context.WithTimeout(ctx, left)
}

// ---- messages ----

func (c *client) selection(keys ...int64) fields {
	return fields{
		"feature_service": c.Service,
		"entity_columns":  []fields{{"join_key": "user_id", "int64_values": keys}},
	}
}

func (c *client) write(key, age int64) fields {
	row := fields{
		"entity_keys": []fields{{"int_value": key}},
		"event_time":  time.Unix(c.NowS, 0).UTC().Format(time.RFC3339),
		"values":      fields{"age": fields{"int_value": age}, "name": fields{"string_value": fmt.Sprintf("written %d", key)}},
	}
	return fields{"feature_view": c.View, "rows": []fields{row}}
}

func summary(answer protoreflect.Message) any {
	statuses := []string{}
	for _, column := range messages(answer, "columns") {
		statuses = append(statuses, hex.EncodeToString(get(column, "statuses").Bytes()))
	}
	slices.Sort(statuses)
	return map[string]any{
		"rows": get(answer, "row_count").Int(), "statuses": slices.Compact(statuses), "ages": ages(answer), "names": names(answer),
	}
}

func column(answer protoreflect.Message, name string) protoreflect.Message {
	for _, one := range messages(answer, "columns") {
		if get(one, "name").String() == name {
			return one
		}
	}
	panic("no column " + name)
}

func ages(answer protoreflect.Message) []int32 {
	values, out := get(column(answer, "age"), "values").Bytes(), []int32{}
	for ; len(values) >= 4; values = values[4:] {
		out = append(out, int32(binary.LittleEndian.Uint32(values)))
	}
	return out
}

func names(answer protoreflect.Message) []string {
	found := column(answer, "name")
	values, offsets, out := get(found, "values").Bytes(), get(found, "offsets").Bytes(), []string{}
	for ; len(offsets) >= 8; offsets = offsets[4:] {
		out = append(out, string(values[binary.LittleEndian.Uint32(offsets):binary.LittleEndian.Uint32(offsets[4:])]))
	}
	return out
}

// An error as { code, reason, domain }.
func failure(err error) map[string]string {
	out := map[string]string{"code": codeOf(err)}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			out["reason"], out["domain"] = info.Reason, info.Domain
		}
	}
	return out
}

func codeOf(err error) string { return codenames.Code_name[int32(status.Code(err))] }
