// Command pubsub-fake serves Google's in-memory Pub/Sub fake, with which the Go client is tested, on one port of the
// loopback: gRPC as the fake has it, and the REST calls for topics and subscriptions, which it lacks, translated by the
// annotations of the API itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A route is a REST call and the method that answers it.
type route struct {
	verb, field, method string
	path                *regexp.Regexp
	in, out             protoreflect.MessageType
}

var (
	variable = regexp.MustCompile(`\{([a-z_.]+)=([^}]+)\}`)
	words    = regexp.MustCompile(`([a-z])([A-Z])`)
)

// routes reads the API's annotations.
func routes() (all []route) {
	services := pubsubpb.File_google_pubsub_v1_pubsub_proto.Services()
	for i := 0; i < services.Len(); i++ {
		methods := services.Get(i).Methods()
		for j := 0; j < methods.Len(); j++ {
			method := methods.Get(j)
			rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
			for _, rule := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
				if one, ok := newRoute(method, rule); ok {
					all = append(all, one)
				}
			}
		}
	}
	return all
}

func newRoute(method protoreflect.MethodDescriptor, rule *annotations.HttpRule) (one route, ok bool) {
	verb, template := pattern(rule)
	place := variable.FindStringSubmatch(template)
	if place == nil {
		return one, false
	}
	name := "(" + strings.ReplaceAll(place[2], "*", "[^/:]+") + ")"
	in, _ := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	out, _ := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	return route{
		verb:   verb,
		field:  place[1],
		method: fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()),
		path:   regexp.MustCompile("^" + strings.Replace(template, place[0], name, 1) + "$"),
		in:     in,
		out:    out,
	}, true
}

func pattern(rule *annotations.HttpRule) (verb, template string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, pattern.Post
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, pattern.Delete
	}
	return "", ""
}

// answer translates one REST call.
func answer(request *http.Request, all []route, fake *grpc.ClientConn) ([]byte, error) {
	for _, one := range all {
		name := one.path.FindStringSubmatch(request.URL.Path)
		if name == nil || one.verb != request.Method {
			continue
		}
		in, out := one.in.New().Interface(), one.out.New().Interface()
		if err := read(request, one.field, name[1], in); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		if err := fake.Invoke(request.Context(), one.method, in, out); err != nil {
			return nil, err
		}
		return protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(out)
	}
	return nil, status.Errorf(codes.NotFound, "no method for %s %s", request.Method, request.URL.Path)
}

// read makes the method's message of body, query and the name in the path.
func read(request *http.Request, field, name string, in proto.Message) error {
	document := map[string]any{}
	if err := json.NewDecoder(request.Body).Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for key, values := range request.URL.Query() {
		if !strings.HasPrefix(key, "$") {
			document[key] = values[0]
		}
	}
	keys := strings.Split(field, ".")
	at := document
	for _, key := range keys[:len(keys)-1] {
		below, ok := at[key].(map[string]any)
		if !ok {
			below = map[string]any{}
			at[key] = below
		}
		at = below
	}
	at[keys[len(keys)-1]] = name
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, in)
}

var httpCodes = map[codes.Code]int{
	codes.InvalidArgument: http.StatusBadRequest, codes.FailedPrecondition: http.StatusBadRequest,
	codes.NotFound: http.StatusNotFound, codes.AlreadyExists: http.StatusConflict,
	codes.Unimplemented: http.StatusNotImplemented, codes.Unavailable: http.StatusServiceUnavailable,
}

func refuse(writer http.ResponseWriter, err error) {
	refusal := status.Convert(err)
	code, ok := httpCodes[refusal.Code()]
	if !ok {
		code = http.StatusInternalServerError
	}
	name := strings.ToUpper(words.ReplaceAllString(refusal.Code().String(), "${1}_$2"))
	writer.WriteHeader(code)
	_ = json.NewEncoder(writer).Encode(map[string]any{
		"error": map[string]any{"code": code, "message": refusal.Message(), "status": name},
	})
}

func serve(address string) error {
	var fake *grpc.Server
	server := pstest.NewServerWithCallback(0, func(made *grpc.Server) { fake = made })
	defer server.Close()
	connection, err := grpc.NewClient(server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	all := routes()
	front := &http.Server{Protocols: new(http.Protocols)}
	front.Protocols.SetHTTP1(true)
	front.Protocols.SetUnencryptedHTTP2(true)
	front.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.ProtoMajor == 2 && strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc") {
			fake.ServeHTTP(writer, request)
			return
		}
		writer.Header().Set("Content-Type", "application/json")
		text, err := answer(request, all, connection)
		if err != nil {
			refuse(writer, err)
			return
		}
		_, _ = writer.Write(text)
	})
	ended, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ended, func() { _ = front.Close() })
	if err := front.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func main() {
	address := flag.String("address", "127.0.0.1:8085", "where to listen, host:port")
	flag.String("state", "", "ignored; tells one server from another in a list of processes")
	flag.Parse()
	if err := serve(*address); err != nil {
		log.Fatal(err)
	}
}
