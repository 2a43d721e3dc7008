<?php
/**
 * oauth-mail for PHP: lift this file into your helpdesk. PHP 8.1 and newer with the FFI extension (ffi.enable=true for web
 * servers; the command line has it by default).
 *
 *   $plugin = (new OauthMail\Library('/usr/lib/liboauth_mail.so'))->plugin(['store' => 'sqlite:mail.db', 'key' => ['file' => 'mail.key']]);
 *   $account = $plugin->open(['incoming' => [...]]);
 *   $batch = $account->fetchBatch(['max_messages' => 100]);
 *   foreach ($batch as $message) { ... }     // one transaction: your request, and $message->key() as a unique column
 *   $account->settleBatch($results);         // [key => 'imported', ...]
 *
 * Requests and answers are the JSON documents of plugin/core/src/hooks/mod.rs, as arrays. Errors are OauthMail\Error, whose
 * kind says what to do. A handle is released when its object is gone (unset, end of scope), or by close().
 */

declare(strict_types=1);

namespace OauthMail;

use FFI;
use FFI\CData;

/** What a hook answers when it cannot go on. */
final class Error extends \RuntimeException
{
    /** @param array $document kind, message, remedy, who, provider_code, faults, retry_after_seconds, ... */
    public function __construct(public readonly array $document)
    {
        parent::__construct(trim(($document['message'] ?? '') . ' ' . ($document['remedy'] ?? '')));
    }

    /** settings, consent_required, admin_required, refused, throttled, transient, too_large, ... */
    public function kind(): string
    {
        return $this->document['kind'] ?? 'other';
    }
}

/** The loaded library. It is never unloaded. */
final class Library
{
    private const INTERFACE = <<<'C'
        typedef struct {
            size_t size; uint32_t version; uint32_t reserved;
            uint32_t (*describe)(uint64_t *text, uint64_t *error);
            uint32_t (*plugin_new)(const char *config, size_t len, const void *callbacks, uint64_t *plugin, uint64_t *error);
            uint32_t (*open)(uint64_t plugin, const char *settings, size_t len, uint64_t *account, uint64_t *error);
            uint32_t (*authenticate)(uint64_t account, const char *request, size_t len, uint64_t *text, uint64_t *error);
            uint32_t (*fetch_batch)(uint64_t account, const char *request, size_t len, uint64_t *batch, uint64_t *error);
            uint32_t (*settle_batch)(uint64_t account, const char *request, size_t len, uint64_t *text, uint64_t *error);
            uint32_t (*send_message)(uint64_t account, const char *request, size_t len, const char *raw, size_t raw_len,
                                     uint64_t *text, uint64_t *error);
            uint32_t (*cancel)(uint64_t account, uint64_t *error);
            uint32_t (*close)(uint64_t account, uint64_t *error);
            uint32_t (*text)(uint64_t object, const char **data, size_t *len, uint64_t *error);
            uint32_t (*count)(uint64_t batch, size_t *messages, uint64_t *error);
            uint32_t (*part)(uint64_t batch, size_t message, uint32_t part, uint32_t attachment, const char **data,
                             size_t *len, uint64_t *error);
            uint32_t (*release)(uint64_t object);
        } OauthMailApi;
        const OauthMailApi *oauth_mail_v1_api(size_t *size);
        C;

    private FFI $ffi;
    private CData $api;

    public function __construct(string $path)
    {
        $this->ffi = FFI::cdef(self::INTERFACE, $path);
        $this->api = $this->ffi->oauth_mail_v1_api(null);
    }

    public function describe(): array
    {
        return $this->read($this->call('describe'));
    }

    public function plugin(array $config): Plugin
    {
        $text = self::json($config);
        return new Plugin($this, $this->call('plugin_new', $text, strlen($text), null));
    }

    /** The handle that a function wrote. */
    public function call(string $name, mixed ...$arguments): int
    {
        $out = $this->ffi->new('uint64_t');
        $error = $this->ffi->new('uint64_t');
        $status = ($this->api->$name)(...[...$arguments, FFI::addr($out), FFI::addr($error)]);
        $this->check($status, $error->cdata);
        return $out->cdata;
    }

    /** A text or an error, once. */
    public function read(int $handle): array
    {
        try {
            return json_decode($this->view('text', $handle), true, 512, JSON_THROW_ON_ERROR);
        } finally {
            $this->release($handle);
        }
    }

    /** The bytes as a PHP string: PHP keeps its own copy of what it holds as a string. */
    public function view(string $name, int ...$arguments): string
    {
        $data = $this->ffi->new('const char *');
        $length = $this->ffi->new('size_t');
        $error = $this->ffi->new('uint64_t');
        $status = ($this->api->$name)(...[...$arguments, FFI::addr($data), FFI::addr($length), FFI::addr($error)]);
        $this->check($status, $error->cdata);
        return $length->cdata === 0 ? '' : FFI::string($data, $length->cdata);
    }

    public function count(int $batch): int
    {
        $count = $this->ffi->new('size_t');
        $error = $this->ffi->new('uint64_t');
        $this->check(($this->api->count)($batch, FFI::addr($count), FFI::addr($error)), $error->cdata);
        return $count->cdata;
    }

    public function release(int $handle): void
    {
        ($this->api->release)($handle);
    }

    public static function json(array $document): string
    {
        return json_encode($document === [] ? new \stdClass() : $document, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES);
    }

    private function check(int $status, int $error): void
    {
        if ($status !== 0) {
            throw new Error($error === 0 ? ['kind' => 'other', 'message' => "status $status"] : $this->read($error));
        }
    }
}

/** A handle that is released once. */
abstract class Owned
{
    private bool $closed = false;

    public function __construct(public readonly Library $library, public readonly int $handle, private ?Owned $keep = null)
    {
    }

    public function close(): void
    {
        if (!$this->closed) {
            $this->closed = true;
            $this->library->release($this->handle);
        }
    }

    public function __destruct()
    {
        $this->close();
    }
}

final class Plugin extends Owned
{
    /** One mailbox in one direction: ['incoming' => [...]] or ['outgoing' => [...]]. */
    public function open(array $settings): Account
    {
        $text = Library::json($settings);
        return new Account($this->library, $this->library->call('open', $this->handle, $text, strlen($text)), $this);
    }
}

final class Account extends Owned
{
    public function authenticate(array $request): array
    {
        return $this->ask('authenticate', $request);
    }

    public function fetchBatch(array $bounds = []): Batch
    {
        $text = Library::json($bounds);
        return new Batch($this->library, $this->library->call('fetch_batch', $this->handle, $text, strlen($text)), $this);
    }

    /** @param array<string, string> $results key => imported, duplicate, refused, retry, failed */
    public function settleBatch(array $results): array
    {
        return $this->ask('settle_batch', ['results' => $results === [] ? new \stdClass() : $results])['done'];
    }

    public function sendMessage(array $request, string $raw = ''): array
    {
        $text = Library::json($request);
        $library = $this->library;
        return $library->read($library->call('send_message', $this->handle, $text, strlen($text), $raw, strlen($raw)));
    }

    private function ask(string $name, array $request): array
    {
        $text = Library::json($request);
        return $this->library->read($this->library->call($name, $this->handle, $text, strlen($text)));
    }
}

/** Messages in mailbox order. Their bytes live as long as the batch. */
final class Batch extends Owned implements \IteratorAggregate, \Countable
{
    public function header(): array
    {
        return json_decode($this->library->view('text', $this->handle), true, 512, JSON_THROW_ON_ERROR);
    }

    public function count(): int
    {
        return $this->library->count($this->handle);
    }

    public function getIterator(): \Generator
    {
        for ($index = 0, $count = $this->count(); $index < $count; $index++) {
            yield new Message($this, $index);
        }
    }
}

final class Message
{
    public function __construct(private Batch $batch, private int $index)
    {
    }

    public function key(): string { return $this->part(0); }
    public function raw(): string { return $this->part(1); }
    public function facts(): array { return json_decode($this->part(2), true, 512, JSON_THROW_ON_ERROR); }
    public function text(): string { return $this->part(3); }
    public function html(): string { return $this->part(4); }
    /** Decoded; $partIndex as facts()['attachments'] lists it. */
    public function attachment(int $partIndex): string { return $this->part(5, $partIndex); }

    private function part(int $part, int $attachment = 0): string
    {
        return $this->batch->library->view('part', $this->batch->handle, $this->index, $part, $attachment);
    }
}
